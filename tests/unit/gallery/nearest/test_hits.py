"""Who is deleted while somebody searches is not shown, and another takes the place."""

import numpy as np
import pytest
from small_galleries import make_gallery

from reid_ray.gallery.gallery_view import GalleryView
from reid_ray.gallery.nearest.hits import PartSearch


@pytest.mark.parametrize("options", [{}, {"threshold": -1.0}, {"one_per": "camera_id"}], ids=str)
def test_what_is_deleted_between_being_found_and_being_read_is_no_hit(tmp_path, monkeypatch, options):
    vectors = np.eye(8, dtype=np.float32)
    query_D = np.array([8, 7, 6, 5, 4, 3, 2, 1], np.float32)
    folder = make_gallery(tmp_path, vectors, [{"item_id": f"{n}", "camera_id": n} for n in range(8)])
    view, found = GalleryView(folder), PartSearch._best

    def found_and_deleted(self, *asked):
        best = found(self, *asked)
        for part in self.parts:
            part.kill(np.array([1]) if len(part.source) else np.zeros(0, np.int64))
        return best

    monkeypatch.setattr(PartSearch, "_best", found_and_deleted)
    hits = view.search((query_D / np.linalg.norm(query_D))[None], 3, **options)[0]
    assert [hit.item_id for hit in hits] == ["0", "2", "3"]
