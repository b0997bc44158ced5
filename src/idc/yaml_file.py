"""YAML files that people write: a mapping, with each key once."""

from pathlib import Path
from typing import Any

from idc.errors import IDCError


def read_yaml(file: str | Path, *, holds: str = "settings", remedy: str = "correct it") -> dict[str, Any]:
    """What a YAML file maps.

    Args:
        holds: what it is a mapping of, for a message.
        remedy: for a file that is YAML but no mapping.

    Raises:
        IDCError: for a file that cannot be read, is not UTF-8 or not YAML, is no mapping, or gives a key twice, of
            which YAML would keep the last.
    """
    import yaml

    class Unique(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise IDCError(
                    f"{twice[0]} twice in {file}, line {node.start_mark.line + 1}", "each name once", "rename one"
                )
            return super().construct_mapping(node, deep)

    try:
        values = yaml.load(Path(file).read_text(encoding="utf-8"), Unique)  # a SafeLoader
    except OSError as error:
        raise IDCError(file, f"a readable YAML file of {holds}", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise IDCError(file, "YAML", " ".join(str(error).split())[:120]) from error
    if not isinstance(values, dict):
        raise IDCError(file, f"a mapping of {holds}", remedy)
    return values
