"""Miniature data sets in their published layouts, drawn from synthetic people: the same names, folders and JSON keys, traps included."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_ray.config.common import SyntheticConfig


@pytest.fixture(scope="session")
def people():
    """(JPEG, two captions, person from 0, camera from 0) of 12 people with 4 images each."""
    from reid_ray.data.synthetic.people import SyntheticPeople

    made = SyntheticPeople(SyntheticConfig(identities=12, images_per_identity=4, height=64, width=32, seed=5))
    images = made.image_table().to_pylist()
    texts = {}
    for row in made.caption_table().to_pylist():
        texts.setdefault(row["image_id"], []).append(row["text"])
    return [(row["image"], texts[row["image_id"]], row["person_id"], row["camera_id"] - 1) for row in images]


class Trees:
    """Writes one miniature tree per data set below `root`; each returns its folder."""

    def __init__(self, root: Path, people) -> None:
        self.root, self.people = root, people

    def put(self, path: str, data: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def json(self, path: str, value) -> None:
        self.put(path, json.dumps(value).encode())

    def cuhk_pedes(self) -> Path:
        """Persons 1-8 train, 9-10 val, 11-12 test, as CUHK-PEDES numbers from 1; image 0 has three captions."""
        folders = ["cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"]
        entries = []
        for index, (jpeg, texts, _, _) in enumerate(self.people):
            person = index // 4 + 1
            path = f"{folders[index % 7]}/{person:03d}_{index}.jpg"
            captions = [*texts, "A third sentence about this person."] if index == 0 else texts
            split = "train" if person <= 8 else "val" if person <= 10 else "test"
            tokens = [text.lower().rstrip(".").split() for text in captions]
            entries.append({"split": split, "captions": captions, "file_path": path, "processed_tokens": tokens, "id": person})
            self.put(f"CUHK-PEDES/imgs/{path}", jpeg)
        self.json("CUHK-PEDES/reid_raw.json", entries)
        self.json("CUHK-PEDES/caption_all.json", [{key: entry[key] for key in ("captions", "file_path", "id")} for entry in entries])
        return self.root / "CUHK-PEDES"

    def icfg_pedes(self, name: str = "ICFG-PEDES.json") -> Path:
        """Persons 0-8 train, 9-11 test; half of the train images lie in imgs/test, as the folders are MSMT17's."""
        entries = []
        for index, (jpeg, texts, _, camera) in enumerate(self.people):
            person = index // 4
            folder = "test" if index % 2 else "train"
            path = f"{folder}/{person:04d}/{person:04d}_{index % 4:03d}_{camera + 1:02d}_0303morning_{index:04d}_0.jpg"
            split = "train" if person <= 8 else "test"
            entries.append({"split": split, "captions": texts[:1], "file_path": path, "processed_tokens": [texts[0].split()], "id": person})
            self.put(f"ICFG-PEDES/imgs/{path}", jpeg)
        self.json(f"ICFG-PEDES/{name}", entries)
        return self.root / "ICFG-PEDES"

    def rstpreid(self) -> Path:
        entries = []
        for index, (jpeg, texts, _, camera) in enumerate(self.people):
            person = index // 4
            path = f"{person:04d}_c{camera + 10}_{index:04d}.jpg"
            entries.append({"id": person, "img_path": path, "captions": texts, "split": ["train", "val", "test"][person // 4]})
            self.put(f"RSTPReid/imgs/{path}", jpeg)
        self.json("RSTPReid/data_captions.json", entries)
        return self.root / "RSTPReid"

    def market1501(self) -> Path:
        """24 train, 6 query, 18 gallery images, and in the gallery 2 distractors 0000, 2 junk -1, and Windows' Thumbs.db."""
        for index, (jpeg, _, _, camera) in enumerate(self.people):
            person = index // 4 + 1
            folder = "bounding_box_train" if person <= 6 else "query" if index % 4 == 0 else "bounding_box_test"
            self.put(f"Market-1501-v15.09.15/{folder}/{person:04d}_c{camera + 1}s1_{index:06d}_03.jpg", jpeg)
        for number in range(2):
            self.put(f"Market-1501-v15.09.15/bounding_box_test/0000_c1s1_{number:06d}_01.jpg", self.people[number][0])
            self.put(f"Market-1501-v15.09.15/bounding_box_test/-1_c2s1_{number:06d}_01.jpg", self.people[number][0])
        self.put("Market-1501-v15.09.15/bounding_box_test/Thumbs.db", b"thumbs")
        return self.root / "Market-1501-v15.09.15"

    def dukemtmc(self) -> Path:
        for index, (jpeg, _, _, camera) in enumerate(self.people):
            person = index // 4 + 1
            folder = "bounding_box_train" if person <= 6 else "query" if index % 4 == 0 else "bounding_box_test"
            self.put(f"DukeMTMC-reID/{folder}/{person:04d}_c{camera + 5}_f{index:07d}.jpg", jpeg)
        return self.root / "DukeMTMC-reID"

    def msmt17(self, version: str = "V1") -> Path:
        """Persons 0-7 in train and val (one val image each), persons 0-3 in the test lists, counted from 0 again."""
        train, test = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[version]
        lines = {name: [] for name in ("train", "val", "query", "gallery")}
        for index, (jpeg, _, _, camera) in enumerate(self.people):
            testing = index >= 32
            person = (index - 32 if testing else index) // 4
            path = (
                f"{person:04d}/{person:04d}_{index % 4:03d}_{camera + 1:02d}_0303morning_{index:04d}_0{'_ex' if index % 5 == 0 else ''}.jpg"
            )
            name = ("query" if index % 4 == 0 else "gallery") if testing else ("val" if index % 4 == 3 else "train")
            lines[name].append(f"{path} {person}")
            self.put(f"MSMT17/{test if testing else train}/{path}", jpeg)
        for name, content in lines.items():
            self.put(f"MSMT17/list_{name}.txt", ("\n".join(content) + "\n").encode())
        return self.root / "MSMT17"

    def cuhk03(self, layout: str, boxes: str = "labeled") -> Path:
        """Two camera pairs of 4 and 2 persons; persons 1-4 train, 5-6 test; layout market, images or release."""
        import h5py
        from scipy.io import savemat

        names, labels, cameras, pixels = [], [], [], {}
        for index, (jpeg, _, _, _) in enumerate(self.people[:24]):
            label = index // 4 + 1
            pair, person = (1, label) if label <= 4 else (2, label - 4)
            number = [1, 2, 6, 7][index % 4]
            name = f"{pair}_{person:03d}_{1 if number <= 5 else 2}_{number:02d}.png"
            names.append(name)
            labels.append(label)
            cameras.append(1 if number <= 5 else 2)
            pixels[name] = np.asarray(Image.open(io.BytesIO(jpeg)))
        train = [i + 1 for i in range(24) if labels[i] <= 4]
        query = [i + 1 for i in range(24) if labels[i] > 4 and i % 2 == 0]
        gallery = [i + 1 for i in range(24) if labels[i] > 4 and i % 2 == 1]
        folder = self.root / f"cuhk03-{layout}"
        folder.mkdir(parents=True)
        if layout == "market":
            folders = {i: f for f, ids in (("bounding_box_train", train), ("query", query), ("bounding_box_test", gallery)) for i in ids}
            for position, name in enumerate(names, start=1):
                path = f"{folder.name}/{boxes}/{folders[position]}/{labels[position - 1]:04d}_c{cameras[position - 1]}_{position}.png"
                self.put(path, png(pixels[name]))
            return folder
        cells = np.empty((24, 1), dtype=object)
        cells[:, 0] = [np.array([name]) for name in names]
        columns = {"labels": labels, "camId": cameras, "train_idx": train, "query_idx": query, "gallery_idx": gallery}
        content = {key: np.array(values, dtype=np.uint16).reshape(-1, 1) for key, values in columns.items()}
        savemat(folder / f"cuhk03_new_protocol_config_{boxes}.mat", {"filelist": cells, **content})
        if layout == "images":
            for name in names:
                self.put(f"{folder.name}/images_{boxes}/{name}", png(pixels[name]))
            return folder
        (folder / "cuhk03_release").mkdir()
        with h5py.File(folder / "cuhk03_release" / "cuhk-03.mat", "w") as mat:  # MATLAB 7.3: HDF5 with every axis reversed
            pairs = []
            for pair, persons in ((1, 4), (2, 2)):
                references = np.empty((10, persons), dtype=h5py.ref_dtype)
                for number in range(1, 11):
                    for person in range(1, persons + 1):
                        name = f"{pair}_{person:03d}_{1 if number <= 5 else 2}_{number:02d}.png"
                        array = pixels[name].T if name in pixels else np.zeros(2, dtype=np.uint64)  # MATLAB's empty cell
                        references[number - 1, person - 1] = mat.create_dataset(f"#refs#/{name}", data=array).ref
                pairs.append(mat.create_dataset(f"#refs#/pair{pair}", data=references, dtype=h5py.ref_dtype).ref)
            mat.create_dataset(boxes, data=np.array([pairs], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
        return folder

    def luperson_lmdb(self) -> Path:
        import lmdb

        folder = self.root / "LUPerson"
        folder.mkdir(parents=True)
        environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 26)
        with environment.begin(write=True) as transaction:
            for index, (jpeg, _, _, _) in enumerate(self.people):
                transaction.put(crop_key(index).encode(), jpeg)
        environment.close()
        self.put("LUPerson/keys.pkl", b"never opened")
        return folder

    def luperson_mllm(self, *, images: bool = True) -> Path:
        """24 images with four captions each; keys of two files carry a folder, as some releases do."""
        files = {name: {} for name in ("Ts-qwen", "Td-qwen", "Ts-shikra", "Td-shikra")}
        for index, (jpeg, texts, _, _) in enumerate(self.people[:24]):
            name = crop_key(index) + ".jpg"
            for file, captions in files.items():
                captions[f"part1/{name}" if "shikra" in file else name] = f"{texts[0]} ({file})"
            if images:
                self.put(f"LUPerson-T/LUPerson-MLLM/{name}", jpeg)
        for file, captions in files.items():
            self.json(f"LUPerson-T/{file}.json", captions)
        return self.root / "LUPerson-T"

    def webperson(self) -> Path:
        """12 images without labels; image 0 spells a line break, and one path says images/ itself."""
        entries = []
        for index, (jpeg, texts, _, _) in enumerate(self.people[:12]):
            path = f"00{index // 4}/{index:06d}.jpg"
            captions = {"caption1": f"{texts[0]}/n/nA red/navy coat." if index == 0 else texts[0], "caption2": texts[1]}
            entries.append({f"images/{path}" if index == 3 else path: captions})
            self.put(f"WebPerson/images/{path}", jpeg)
        self.json("WebPerson/100w.json", entries)
        return self.root / "WebPerson"

    def synth_pedes(self, name: str = "synthpedes_dataset.json") -> Path:
        """6 persons with 4 images each in two parts; every other image has three captions."""
        entries = []
        for index, (jpeg, texts, _, _) in enumerate(self.people[:24]):
            path = f"Part{1 + index // 12}/{index // 4}/{index % 4}.jpg"
            captions = [*texts, f"A third sentence about person {index // 4}."] if index % 2 else texts
            attributes = ["man,black hair,black shirt,pink shorts,black shoes,unknown"]
            prompted = [f"A person with the attributes of image {index}."]
            entry = {"id": index // 4, "file_path": path, "attributes": attributes, "captions": captions, "prompt_caption": prompted}
            entries.append(entry)
            self.put(f"SYNTH-PEDES/{path}", jpeg)
        self.json(f"SYNTH-PEDES/{name}", entries)
        return self.root / "SYNTH-PEDES"

    def ham_pedes(self) -> Path:
        """Captions {path: [two]} of 24 images of SYNTH-PEDES, beside them."""
        folder = self.synth_pedes()
        (folder / "synthpedes_dataset.json").unlink()
        paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
        self.json("SYNTH-PEDES/HAM_PEDES.json", {path: [f"First of {path}, he walks.", f"Second of {path}, she runs."] for path in paths})
        return folder

    def mals(self) -> Path:
        """Two files of 6 images; every third has labels of -1, the last an unusable list."""
        for part in range(2):
            entries = []
            for index in range(6):
                path = f"gene_crop/c_g_a_{part}/{index}.jpg"
                label = [1, 0] * 13 + [-1 if index % 3 == 0 else 1]
                caption = f"a person in drawing {part} {index} who walks"
                entry = {"image": path, "caption": caption, "image_id": f"c_g_a_{part}_{index}", "label": label[: 27 if index < 5 else 5]}
                entries.append(entry)
                self.put(f"MALS/{path}", self.people[6 * part + index][0])
            self.json(f"MALS/gene_attrs/g_c_g_a_{part}_attrs.json", entries)
        return self.root / "MALS"

    def ufine6926(self) -> Path:
        """Persons 1-8 train, 9-12 test; two captions of some 90 words an image."""
        return self._ufine("UFine6926", lambda person: {"split": "train" if person <= 8 else "test"}, lambda index: 2)

    def ufine3c(self) -> Path:
        """All test: half of the entries say so; one to three captions an image."""
        said = lambda person: {"source": "UFine6926", **({"split": "test"} if person <= 6 else {})}  # noqa: E731
        return self._ufine("UFine3C", said, lambda index: 1 + index % 3)

    def _ufine(self, name: str, said, captions_of) -> Path:
        entries = []
        for index, (jpeg, texts, _, _) in enumerate(self.people):
            person = index // 4 + 1
            captions = [f"{' '.join([texts[k % 2]] * 6)} It is text {k}." for k in range(captions_of(index))]
            entries.append({**said(person), "id": person, "file_path": f"images/{index + 1}.jpg", "captions": captions})
            self.put(f"{name}/images/{index + 1}.jpg", jpeg)
        self.json(f"{name}/{name}_Annotations.json", entries)
        return self.root / name

    def interactive_pedes(self) -> Path:
        """16 images of 4 persons, from two data sets, with descriptions and a dialogue."""
        entries = []
        for index, (jpeg, texts, _, _) in enumerate(self.people[:16]):
            path = f"{'CUHK-PEDES/imgs/cam_a' if index % 2 else 'ICFG-PEDES/imgs/train'}/{index}.jpg"
            described = {"initial_description": f"Somebody in picture {index}.", "fine-grained_description": f"{texts[0]} {texts[1]}"}
            said = {"questions": ["What does the person wear?"], "answers": [texts[1]]}
            split = ["train", "train", "val", "test"][index // 4]
            entries.append({"split": split, "id": index // 4, "file_path": path, "captions": texts[:1], **described, **said})
            self.put(f"Interactive-PEDES/{path}", jpeg)
        self.json("Interactive-PEDES/Interactive-PEDES_interactive_annos.json", entries)
        return self.root / "Interactive-PEDES"

    def itcpr(self) -> Path:
        """4 persons: queries of 4 images, one of which asks twice; a gallery of 8, of which 2 are distractors."""
        queries, gallery = [], []
        for index, (jpeg, texts, _, _) in enumerate(self.people[:12]):
            folder, path = ("Celeb-reID", f"{index // 3:03d}/{index}.jpg") if index % 2 else ("PRCC", f"PRCC/test/{index}.jpg")
            self.put(f"ITCPR/{path}" if path.startswith("PRCC") else f"ITCPR/{folder}/{path}", jpeg)
            who = {"file_path": path, "datasets": folder, "person_id": index % 4, "instance_id": -1 if index > 9 else 100 + index % 4}
            if index < 4:
                queries += [{**who, "caption": text} for text in (texts if index == 0 else texts[:1])]
            else:
                gallery.append(who)
        self.json("ITCPR/query.json", queries)
        self.json("ITCPR/gallery.json", gallery)
        return self.root / "ITCPR"

    def syncpr(self) -> Path:
        """6 triplets of images of their own."""
        entries = []
        for index in range(6):
            entry = {"edit_caption": f"Wearing something else, number {index}.", "cpr_id": index // 2}
            for offset, (role, side) in enumerate((("reference", "left"), ("target", "right"))):
                jpeg, texts, _, _ = self.people[2 * index + offset]
                path = f"test{1 + index % 2}/sub_img/img_{side}/{index}_{side}.png"
                entry |= {f"{role}_image_path": path, f"{role}_caption": texts[0]}
                self.put(f"SynCPR/{path}", jpeg)
            entries.append(entry)
        self.json("SynCPR/SynCPR.json", entries)
        return self.root / "SynCPR"


def crop_key(index: int) -> str:
    """The key of one crop in LUPerson's LMDB: country, city, video and number."""
    return f"{index // 24:02d}_{index // 12 % 2:02d}_{index // 4:04d}_{index % 4:08d}"


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def trees(tmp_path, people) -> Trees:
    return Trees(tmp_path / "data", people)
