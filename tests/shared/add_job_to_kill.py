"""Works on a service's add jobs in a process of its own, slowly, until it is killed: python add_job_to_kill.py GALLERY"""

import sys
import time
from pathlib import Path

from plain_encoder import PlainEncoder

from reid_ray.serve.adding.config import AddingConfig
from reid_ray.serve.adding.write_operations import WriteOperations
from reid_ray.serve.operations.config import WritingConfig


class Slow(PlainEncoder):
    def encode_images(self, pictures):
        time.sleep(0.1)
        return super().encode_images(pictures)


if __name__ == "__main__":
    gallery = Path(sys.argv[1])
    operations = WriteOperations(str(gallery), gallery.with_name("gallery.service"), WritingConfig(), AddingConfig(batch_size=2))
    operations.start(Slow(), changed=lambda: None)
    time.sleep(60)
