import click

command = click.Command("selftest")
