"""A Dockerfile, read as far as ours goes: stages of instructions, what they set, and what they copy."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_OPTION: Final = re.compile(r"--([a-z-]+)=(\S+)\s+")


@dataclass(frozen=True, slots=True)
class Instruction:
    """`RUN x` is the name `RUN` and the text `x`; `options` are those of the instruction (`--from=build`)."""

    name: str
    text: str
    options: dict[str, str]

    @property
    def words(self) -> list[str]:
        """The exec form's, else the words of the text."""
        if self.text.startswith("["):
            found: list[str] = json.loads(self.text)
            return found
        return self.text.split()


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> Instruction:
        """The one that counts. Raises IndexError when there is none."""
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets, without substitution."""
        return dict(pair.split("=", 1) for each in self.all("ENV") for pair in each.words)


def read(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """The stages in order."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        options: dict[str, str] = {}
        while (option := _OPTION.match(text)) is not None and name != "RUN":
            options[option[1]] = option[2]
            text = text[option.end() :]
        if name == "FROM":
            base, *alias = text.split(" AS ")
            stages.append(Stage(alias[0] if alias else "", base))
        elif name == "HEALTHCHECK":
            stages[-1].instructions.append(Instruction(name, text.removeprefix("CMD").strip(), options))
        else:
            stages[-1].instructions.append(Instruction(name, text.strip(), options))
    return stages


def in_context(place: str) -> bool:
    """Whether `.dockerignore`, which lets nothing in but what it names, lets this in."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return any(place == name or place.startswith(f"{name}/") for name in allowed)
