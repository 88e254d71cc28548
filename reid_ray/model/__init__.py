"""Models and their checkpoints: the dual encoder, the tiny multimodal model. No training loop, no Ray."""
