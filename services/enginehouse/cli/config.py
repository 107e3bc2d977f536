"""`enginehouse config`: the settings, read and explained."""

import typer
import yaml

from enginehouse.cli.options import ConfigOption
from enginehouse.services.settings import find_file, load

app = typer.Typer(help="The settings file.", no_args_is_help=True)


@app.command("check")
def check(config: ConfigOption = None) -> None:
    """Read the settings and say what is wrong with them, with the line."""
    file = find_file(config)
    load(file)
    print(f"{file}: right")


@app.command("show")
def show(config: ConfigOption = None) -> None:
    """Print the settings with every default, as the mesh would use them."""
    content = load(find_file(config)).model_dump(mode="json", exclude_none=True)
    print(yaml.safe_dump(content, sort_keys=False), end="")
