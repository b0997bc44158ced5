"""YAML files that people write: a mapping, with each key once."""

from pathlib import Path
from typing import Any

from idc.errors import IDCError

YAML_SUFFIXES = (".yaml", ".yml")
NAMES = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
# What PyYAML raises at values that are none: 2024-99-01, 0b_, !!bool x, !!timestamp x, a thousand brackets.
OF_VALUES = (ValueError, LookupError, AttributeError, RecursionError)


def read_yaml(file: str | Path, *, holds: str = "settings", remedy: str = "correct it") -> dict[str, Any]:
    """What a YAML file maps.

    Args:
        holds: what it is a mapping of, for a message.
        remedy: for a file that is YAML but no mapping.

    Raises:
        IDCError: for a file that cannot be read, is not UTF-8 or not YAML, is no mapping, or has a key that is no name
            or is given twice, of which YAML would keep the last.
    """
    import yaml

    class Unique(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                where = f"in {file}, line {key.start_mark.line + 1}"
                if key.tag not in NAMES:
                    what = key.value if isinstance(key, yaml.ScalarNode) else "that is a list or mapping"
                    raise IDCError(f"a key {what} {where}", "a name", "write a name, or put it in quotes")
                if key.value in seen:
                    raise IDCError(f"{key.value} twice {where}", "each name once", "remove one")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        values = yaml.load(Path(file).read_text(encoding="utf-8"), Unique)  # a SafeLoader
    except OSError as error:
        raise IDCError(file, f"a readable YAML file of {holds}", "check the path") from error
    except UnicodeDecodeError as error:
        raise IDCError(f"{file}, byte {error.start}", "YAML in UTF-8", "save it as UTF-8") from error
    except (yaml.YAMLError, *OF_VALUES) as error:
        what = " ".join(str(error).split())[:160]
        if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
            what = f"{error.problem}, line {error.problem_mark.line + 1}"
        raise IDCError(f"{file}: {what}", "YAML", "correct what it names, or put the value in quotes") from error
    if not isinstance(values, dict):
        raise IDCError(file, f"a mapping of {holds}", remedy)
    return values
