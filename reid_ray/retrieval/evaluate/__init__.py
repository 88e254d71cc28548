"""The evaluate job: CMC, mAP and mINP of an encoder or of embeddings, with a page and pictures."""
