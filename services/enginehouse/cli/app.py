"""The subcommands of `enginehouse`, each in a module of its own."""

from importlib.metadata import version as package_version

import typer

from enginehouse.cli import (
    admin,
    config,
    demo,
    deploy,
    engine,
    engine_run,
    events,
    explain,
    node,
    policy,
    replay,
    serve,
    up,
)

app = typer.Typer(
    name="enginehouse",
    help="A mesh that sends every LLM request to the right engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("explain")(explain.explain)
app.command("replay")(replay.replay)
app.command("serve")(serve.serve)
app.add_typer(events.app, name="events")
app.add_typer(config.app, name="config")
engine.app.command("run")(engine_run.run)
app.add_typer(engine.app, name="engine")
app.add_typer(node.app, name="node")
app.add_typer(admin.keys, name="keys")
app.add_typer(admin.tenants, name="tenants")
app.add_typer(admin.limits, name="limits")
admin.deployments.command("apply")(deploy.apply)
app.add_typer(admin.deployments, name="deployments")
app.add_typer(policy.app, name="policy")


@app.command("version")
def version() -> None:
    """Print the version."""
    print(package_version("enginehouse"))
