"""Random changes and searches through the application, beside a dictionary: no wrong picture, no wrong item, nothing lost, nothing back."""

import asyncio
import json

import numpy as np
import pytest
from plain_encoder import png_of, vector_of
from whole_services import service

from reid_ray.gallery.gallery_view import GalleryView

pytestmark = pytest.mark.slow

PICTURES = [f"picture {number}" for number in range(24)]
VECTORS = {name: vector_of(name) for name in PICTURES}


class Model:
    """What the gallery should hold: {item: (picture, camera)}; erased items do not come back by a snapshot."""

    def __init__(self):
        self.items, self.kept, self.requests = {}, {}, 0

    def erase(self, ids):
        for held in (self.items, *self.kept.values()):
            for each in ids:
                held.pop(each, None)


class Walk:
    """Random steps, each through one of the replicas, drawn anew."""

    def __init__(self, clients, seed):
        self.clients, self.rng, self.model, self.seed = clients, np.random.default_rng(seed), Model(), seed
        self.pictures = {}  # each one's thumbnail, as it was first seen

    @property
    def client(self):
        return self.clients[int(self.rng.integers(len(self.clients)))]

    async def change(self, method, path, body=None, expect=200, **options):
        reply = await self.client.request(method, path, **({"json": body} if body is not None else {}), **options)
        assert reply.status_code == expect, (path, reply.status_code, reply.text)
        return reply.json()

    def some(self, most):
        known = sorted(self.model.items)
        return [known[at] for at in self.rng.choice(len(known), min(len(known), most), replace=False)] if known else []

    async def add(self):
        ids = [f"item {number}" for number in self.rng.choice(16, int(self.rng.integers(1, 6)), replace=False)]
        new = {each: (str(self.rng.choice(PICTURES)), int(self.rng.integers(3))) for each in ids}
        items = [{"file": f"{each}.png", "item_id": each, "camera_id": camera} for each, (_, camera) in new.items()]
        files = [("image", (f"{each}.png", png_of(picture))) for each, (picture, _) in new.items()]
        job = await self.change("POST", "/v1/jobs?wait=30", expect=202, files=files, data={"items": json.dumps(items)})
        assert (job["state"], job["counts"]["added"], job["refused"]) == ("done", len(ids), [])
        self.model.items |= new

    async def delete(self):
        ids = self.some(3)
        done = await self.change("POST", "/v1/items/delete", {"item_ids": [*ids, "nobody"]})
        assert done["deleted"] == len(ids)
        for each in ids:
            del self.model.items[each]

    async def delete_where(self):
        camera = int(self.rng.integers(3))
        ids = [each for each, (_, found) in self.model.items.items() if found == camera]
        if self.model.items:
            await self.change("POST", "/v1/items/delete", {"where": {"camera_id": camera}, "expect": len(ids) + 1}, expect=409)
            await self.change("POST", "/v1/items/delete", {"where": {"camera_id": camera}, "expect": len(ids)})
            for each in ids:
                del self.model.items[each]

    async def erase(self):
        ids = self.some(2)
        if ids:
            self.model.requests += 1
            body = {"item_ids": ids, "request": f"r{self.seed}-{self.model.requests}", "now": bool(self.rng.random() < 0.5)}
            for _ in range(2):  # who asks again is answered, and nothing is erased twice
                assert (await self.change("POST", "/v1/items/erase", body))["items"] == len(ids)
            self.model.erase(ids)

    async def snapshot(self):
        name = str(self.rng.choice(["one", "two"]))
        if name in self.model.kept:
            await self.change("POST", "/v1/snapshots", {"name": name}, expect=409)
        else:
            await self.change("POST", "/v1/snapshots", {"name": name})
            self.model.kept[name] = dict(self.model.items)

    async def restore(self):
        name = str(self.rng.choice(["one", "two"]))
        if name not in self.model.kept:
            await self.change("POST", f"/v1/snapshots/{name}/restore", expect=404)
        elif self.rng.random() < 0.3:
            await self.change("DELETE", f"/v1/snapshots/{name}")
            del self.model.kept[name]
        else:
            await self.change("POST", f"/v1/snapshots/{name}/restore")
            self.model.items = dict(self.model.kept[name])

    async def compact(self):
        job = await self.change("POST", "/v1/compact", expect=202)
        assert (await self.change("GET", f"/v1/jobs/{job['job_id']}?wait=30"))["state"] == "done"

    async def step(self):
        steps = [(0.4, self.add), (0.55, self.delete), (0.62, self.delete_where), (0.74, self.erase), (0.84, self.snapshot)]
        choice = self.rng.random()
        for limit, do in [*steps, (0.95, self.restore), (1.0, self.compact)]:
            if choice < limit:
                return await do()

    async def check(self, client):
        sought = str(self.rng.choice(PICTURES))
        reply = await client.post("/v1/search", json={"text": sought, "k": 50})
        assert reply.status_code == 200, reply.text
        hits = reply.json()["hits"]
        assert {hit["item_id"] for hit in hits} == set(self.model.items)
        for hit in hits:
            picture, camera = self.model.items[hit["item_id"]]
            assert hit["item"]["camera_id"] == camera
            assert hit["score"] == pytest.approx(float(VECTORS[picture] @ VECTORS[sought]), abs=1e-5)
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        if hits:
            hit = hits[int(self.rng.integers(len(hits)))]
            same = {each for each in self.model.items if self.model.items[each][0] == self.model.items[hit["item_id"]][0]}
            small = (await client.get(hit["thumbnail"])).content
            known = self.pictures.setdefault(self.model.items[hit["item_id"]][0], small)
            assert small == known, f"{hit['item_id']} shows another picture than {same}"


def walked(folder, seed, steps, *, replicas):
    async def run(made):
        clients = [each.client() for each in made]
        walk = Walk(clients, seed)
        for _ in range(steps):
            await walk.step()
            if replicas > 1:
                await asyncio.sleep(0.25)  # so late a replica may see what another one wrote
            for client in clients:
                await walk.check(client)
        for client in clients:
            await client.aclose()
        return walk.model

    with service(folder, replicas=replicas, gallery={"segment_rows": 8, "merge_rows": 24}) as made:
        model = asyncio.run(run(made))
    view = GalleryView(folder / "gallery")
    assert set(view.ids()) == set(model.items)


@pytest.mark.parametrize("seed", range(3))
def test_a_service_holds_what_a_dictionary_holds(tmp_path, seed):
    walked(tmp_path, seed, 30, replicas=1)


def test_two_replicas_over_one_gallery_hold_the_same(tmp_path):
    walked(tmp_path, 7, 12, replicas=2)


def test_clients_of_two_replicas_that_change_at_once_lose_nothing(tmp_path):
    """Each client adds and deletes items of its own; what it was told is done must be there in the end, and nothing else."""

    async def own(replica, name, kept):
        rng = np.random.default_rng(int(name))
        async with replica.client() as client:
            for number in range(8):
                item = f"{name}-{number}"
                items = [{"file": "a.png", "item_id": item, "camera_id": int(name)}]
                files = [("image", ("a.png", png_of(PICTURES[number])))]
                job = (await client.post("/v1/jobs?wait=60", files=files, data={"items": json.dumps(items)})).json()
                assert job["state"] == "done", job
                kept[item] = PICTURES[number]
                if rng.random() < 0.4:
                    gone = str(rng.choice(sorted(each for each in kept if each.startswith(f"{name}-"))))
                    path, body = ("delete", {}) if rng.random() < 0.5 else ("erase", {"request": f"r-{item}"})
                    reply = await client.post(f"/v1/items/{path}", json={"item_ids": [gone], **body})
                    assert reply.status_code == 200, reply.text
                    del kept[gone]

    async def run(made, kept):
        await asyncio.gather(*(own(made[at % 2], str(at), kept) for at in range(4)))

    kept = {}
    with service(tmp_path, replicas=2, gallery={"segment_rows": 8}) as made:
        asyncio.run(run(made, kept))
    view = GalleryView(tmp_path / "gallery")
    assert set(view.ids()) == set(kept)
    for item, picture in kept.items():
        np.testing.assert_allclose(view.vectors([item])[0], VECTORS[picture], atol=1e-6)
