"""The recipe of editors (Diverse Person): data, module, losses and the job train_editor."""
