"""Every command is a function at the top of the library, and the same argument is the same everywhere."""

from __future__ import annotations

import inspect

import pytest

import bmrl
from bmrl.cli import arguments
from bmrl.cli.commands import COMMANDS
from bmrl.cli.main import _parser


def parsers():
    """The parser of each command, by name, with its arguments."""
    (commands,) = _parser()._subparsers._group_actions
    return {name: parser.complete() for name, parser in commands.choices.items()}


def arguments_of(name):
    """The arguments of a command by the name of their value, without those that every command has."""
    actions = parsers()[name]._actions
    return {action.dest: action for action in actions if action.dest not in ("help", "verbose")}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_is_a_function_at_the_top(command):
    assert command.function in bmrl.__all__
    parameters = inspect.signature(getattr(bmrl, command.function)).parameters
    ours = arguments_of(command.name)
    assert set(command.takes) <= set(ours)
    taken = {command.takes.get(name, name) for name in ours} - {None}
    if "inputs" in ours:  # the model and the images, whose number is not known
        taken.add("model")
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= taken <= set(parameters)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_an_option_that_is_not_given_is_the_default_of_the_function(command):
    parameters = inspect.signature(getattr(bmrl, command.function)).parameters
    for name, action in arguments_of(command.name).items():
        if name in command.takes or action.required or action.default is None:
            continue
        default = parameters[name].default
        assert action.default == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("name", ["model", "data", "device", "preset"])
def test_an_argument_means_the_same_in_every_command(name):
    found = [arguments_of(command.name).get(name) for command in COMMANDS]
    found = [action for action in found if action is not None]
    assert len(found) >= 2
    assert len({(action.metavar, action.type, tuple(action.choices or ())) for action in found}) == 1
    shortest = min((action.help for action in found), key=len)
    assert all(action.help.startswith(shortest) for action in found) or name == "device"  # whose words differ


def test_every_place_is_checked_to_be_given():
    for command in COMMANDS:
        for name, action in arguments_of(command.name).items():
            if name in ("data", "out", "model", "source", "folder", "repository", "families", "images", "artifact"):
                assert action.type is arguments.path, (command.name, name)


def test_names_that_help_shows_without_loading_the_tables_are_those_of_the_tables():
    from bmrl.training.settings import PRESETS

    assert set(arguments.PRESETS) == set(PRESETS)
