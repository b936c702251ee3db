"""Completion in shells: of commands and options by click, of buckets and keys by asking the server.

A completion that cannot be made quickly is none: whatever goes wrong, the shell is told nothing. bash takes a colon
for the end of a word, so its script hands over the line whole and takes back what stands behind the colon; zsh ends a
word behind whatever it completed, so its script tells it that a folder is no end. fish needs to be told neither.
"""

import os

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, add_completion_class

from holdfast.cli.client.address import SCHEME
from holdfast.core.errors import HoldfastError

# More than one page is no help to anybody.
_SHOWN_MAX_COUNT = 200

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}" response type value
    local current="${line##*[[:space:]]}" before=""
    [[ $current == *:* && $COMP_WORDBREAKS == *:* ]] && before="${current%%${current##*:}}"
    response=$(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        type="${completion%%%%,*}" value="${completion#*,}"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            *)
                [[ $value == */ ]] && compopt -o nospace
                COMPREPLY+=("${value#"$before"}")
                ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response described plain folders
    local type key descr line="${words[*]}" at=$((CURRENT-1))
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(COMP_WORDS=$line COMP_CWORD=$at %(complete_var)s=zsh_complete %(prog_name)s)}")
    for type key descr in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                if [[ $descr != _ ]]; then
                    described+=("$key:$descr")
                elif [[ $key == */ ]]; then
                    folders+=("$key")
                else
                    plain+=("$key")
                fi
                ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
    (( $#folders )) && compadd -U -S '' -V unsorted -a folders
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Bash(BashComplete):
    """Words are told apart by white space alone. Behind a folder the word goes on."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        from click.shell_completion import split_arg_string

        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        if line[-1:].isspace() or not words:
            return words, ""
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"

    @staticmethod
    def _check_version() -> None:
        """The script works with bash 4.4, which click would start a bash to find out."""


class _Zsh(ZshComplete):
    """click's answers, and a script in which a folder is no end."""

    name = "zsh"
    source_template = _ZSH


class RemoteType(click.ParamType[str]):
    """An argument that names something remote, as text: the command parses it."""

    name = "remote"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found: list[CompletionItem] = []
        if not incomplete.startswith(SCHEME[: len(incomplete)]) and not incomplete.startswith(SCHEME):
            return [CompletionItem(incomplete, type="file")]
        try:
            found = [CompletionItem(name) for name in _names(ctx, incomplete)]
        except HoldfastError:
            pass
        if not incomplete:
            found.append(CompletionItem(incomplete, type="file"))
        return found


REMOTE = RemoteType()


def _names(ctx: click.Context, incomplete: str) -> list[str]:
    """Buckets, then the folders and objects of one level, as they are written in full."""
    from itertools import islice

    from holdfast.cli.client import listing
    from holdfast.cli.client.connection import Choice, Connection
    from holdfast.cli.client.listing import Folder
    from holdfast.cli.system import SystemClock

    profile, endpoint_url, region = (ctx.params.get(name) or "" for name in ("profile", "endpoint_url", "region"))
    connection = Connection(Choice(profile, endpoint_url, region, patient=False), SystemClock())
    bucket, slash, key = incomplete.removeprefix(SCHEME).partition("/")
    if not slash:
        answer = connection.call("list_buckets")
        return [f"{SCHEME}{one['Name']}/" for one in answer.get("Buckets", ()) if one["Name"].startswith(bucket)]
    entries = islice(listing.level(connection, bucket, key), _SHOWN_MAX_COUNT)
    names = (one.prefix if isinstance(one, Folder) else one.key for one in entries)
    return [f"{SCHEME}{bucket}/{name}" for name in names if name.isprintable() and " " not in name]


_SHELLS = {"bash": _Bash, "zsh": _Zsh, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_SHELLS)), metavar="[bash|zsh|fish]")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, buckets and keys.

    \b
    bash   eval "$(holdfast completion bash)"        in ~/.bashrc
    zsh    eval "$(holdfast completion zsh)"         in ~/.zshrc
    fish   holdfast completion fish | source         in ~/.config/fish/config.fish
    """
    root = ctx.find_root()
    click.echo(_SHELLS[shell](root.command, {}, "holdfast", "_HOLDFAST_COMPLETE").source())


def install() -> None:
    """Have click answer our way."""
    add_completion_class(_Bash)
    add_completion_class(_Zsh)
