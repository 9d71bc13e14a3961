"""What the image promises, read from the Dockerfile. `python -m tests.config.image` makes it."""

import re

from taskhub.cli.parser import build_parser
from taskhub.settings.model import Settings
from tests.config.dockerfile import ROOT, in_context, read

BUILD, IMAGE = read()


def test_what_is_copied_is_there_and_let_into_the_build() -> None:
    places = [place for stage in (BUILD, IMAGE) for copy in stage.all("COPY") if not copy.options
              for place in copy.words[:-1]]  # fmt: skip

    assert len(places) >= 8
    assert not [place for place in places if not (ROOT / place).exists() or not in_context(place)]


def test_no_secret_gets_into_the_build() -> None:
    assert not in_context("config/.env")


def test_dependencies_come_before_code_so_that_a_change_of_code_installs_none_again() -> None:
    steps = [f"{step.name} {step.text}" for step in BUILD.instructions]
    installed = next(n for n, step in enumerate(steps) if "-r requirements.lock" in step)
    copied = min(n for n, step in enumerate(steps) if re.match(r"COPY (taskhub|routes|broadcaster|pyproject)", step))

    assert installed < copied


def test_nothing_is_installed_unchecked() -> None:
    installs = re.findall(r"\binstall (?!-)?[^&]*", " ".join(s.text for s in BUILD.all("RUN") if "pip" in s.text))

    assert len(installs) == 3
    assert all("--require-hashes -r requirements" in text or "--no-index" in text for text in installs)


def test_the_image_runs_as_a_numbered_user_who_owns_the_one_place_that_is_written_to() -> None:
    user = IMAGE.last("USER").text
    (data,) = IMAGE.last("VOLUME").words
    (made,) = [step.text for step in IMAGE.all("RUN")]

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert f"--uid {user.partition(':')[0]}" in made
    assert f"-m 0700 {data}" in made
    assert {IMAGE.environment["TASKHUB_DATA_DIR"], IMAGE.environment["TMPDIR"]} == {data}


def test_the_image_serves_and_is_stopped_as_taskhub_understands() -> None:
    entry, command = IMAGE.last("ENTRYPOINT"), IMAGE.last("CMD")

    assert entry.words == ["taskhub"]
    assert build_parser().parse_args(command.words).command == "serve"
    assert all(step.text.startswith("[") for step in (entry, command, IMAGE.last("HEALTHCHECK")))
    assert IMAGE.last("EXPOSE").text == str(Settings.model_fields["port"].default)
    assert IMAGE.last("STOPSIGNAL").text == "SIGTERM"
