"""What a wheel holds beside Python: asked of the builder, without building one."""

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_every_file_of_the_page_and_every_template_and_configuration():
    held = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    wanted = {
        str(path.relative_to(ROOT)) for path in (ROOT / "reid_ray").rglob("*") if path.suffix in (".html", ".css", ".js", ".svg", ".jinja")
    }
    wanted |= {f"reid_ray/configs/{path.relative_to(ROOT / 'jobs' / 'configs')}" for path in (ROOT / "jobs" / "configs").rglob("*.yaml")}
    assert {"reid_ray/serve/web/index.html", "reid_ray/serve/web/main.js"} < wanted
    assert wanted - held == set()
