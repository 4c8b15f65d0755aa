#!/bin/bash
# The main job on real data, told step by step: demo.sh HOLDFAST [TREE]. Everything happens in a temporary directory that
# is removed at the end; no account is needed and nothing is asked.
set -euo pipefail

holdfast=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
origin=$(realpath "${2:-$(go env GOROOT)/src}")
work=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-demo.XXXXXX")
end_databases() { :; }
trap 'end_databases; chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

# The demo has an identity, a state and a repository of its own.
for name in $(compgen -e HOLDFAST_ || true) $(compgen -e PG || true); do unset "$name"; done
export HOME=$work/home HOLDFAST_REPOSITORY=$work/repository HOLDFAST_STATE=$work/state HOLDFAST_POLICY= HOLDFAST_HOST=demo
unset XDG_CONFIG_HOME XDG_STATE_HOME
mkdir "$HOME"
cd /
tree=$work/tree
began=$EPOCHREALTIME

say() { printf '\n%s\n' "$*"; }
run() {
	printf '  $ holdfast %s\n' "${*//$work/…}"
	local code=0
	"$holdfast" "$@" >"$work/output" 2>&1 || code=$?
	sed -e "s,$work,…,g" -e "s,${home:-$work},…/postgres,g" -e 's/^/    /' "$work/output"
	return "$code"
}
size() { numfmt --to=iec-i --suffix=B "$(du -s --block-size=1 "$1" | cut -f1)" | sed 's/[KMGT]/ &/'; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'; }
# Every file with its content's checksum, and every name with type, mode, owner and time in nanoseconds.
portrait() {
	(cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum &&
		find . -printf '%p %y %m %U:%G %T@ %l\n' | LC_ALL=C sort)
}
fail() {
	printf '\nthe demo failed: %s\n' "$*" >&2
	exit 1
}

cp -a "$origin" "$tree"
files=$(find "$tree" -type f | wc -l)
say "Holdfast demo: back up, change, lose and restore $files files, $(size "$tree"), copied from $origin."

say "1. A repository on this disk, and an identity that opens it. Everything in it is encrypted."
run init

say "2. The first backup is a full one."
run backup --files "$tree" --name code
printf '  On disk: %s for %s of files.\n' "$(size "$work/repository")" "$(size "$tree")"

say "3. Work goes on: one file is edited, one is new, a directory is deleted, the mode of a file changes."
edited=$(cd "$tree" && find . -type f -name '*.go' | LC_ALL=C sort | sed -n 1p)
deleted=$(cd "$tree" && find . -mindepth 1 -type d | LC_ALL=C sort | tail -n 1)
mode=$(cd "$tree" && find . -type f | LC_ALL=C sort | sed -n 2p)
echo '// edited' >>"$tree/$edited"
echo 'a new file' >"$tree/new.txt"
rm -r "${tree:?}/$deleted"
chmod 0600 "$tree/$mode"
portrait "$tree" >"$work/before"

say "4. The second backup stores only what is new."
run backup --files "$tree" --name code
run snapshots
run diff code >"$work/diff" || fail "diff"
if (($(wc -l <"$work/diff") > 16)); then
	{ head -n 8 "$work/diff"; echo "    …"; tail -n 6 "$work/diff"; }
else
	cat "$work/diff"
fi

say "5. Disaster: the whole tree is gone."
rm -rf "$tree"
printf '  $ ls …/tree\n    %s\n' "$(ls "$tree" 2>&1 | sed "s,$work,…,g")"

say "6. Restore it to where it was."
start=$EPOCHREALTIME
run restore code --in-place
printf '  Back in %s.\n' "$(seconds "$start")"

say "7. Compare: the content of every file, every name, mode, owner and time."
portrait "$tree" >"$work/after"
cmp "$work/before" "$work/after" || fail "the restored tree differs"
printf '  %s files and %s names compared: all the same, to the byte and the nanosecond.\n' \
	"$(grep -c '^[0-9a-f]\{64\}' "$work/after")" "$(grep -vc '^[0-9a-f]\{64\}' "$work/after")"

say "8. The state before the edit is there as well."
run cat code@1 "$tree/$edited" >/dev/null || fail "cat"
run find code "$tree/${edited#./}" --all --long

say "9. Everything in the repository is whole: each chunk is opened and checked."
run verify --level content --all

say "10. Now one byte of the repository is damaged, as a bad disk would."
# The newest snapshot's own pack: what was damaged can be stored again from the files that are there. Whatever the byte is, it
# becomes another one.
pack=$(ls -t "$work"/repository/v1/demo/code/packs/*/* | sed -n 1p)
chmod u+w "$pack"
byte=$(od -An -tu1 -j60 -N1 "$pack")
# shellcheck disable=SC2059 # the number is the format
printf "\\$(printf %03o $((byte ^ 1)))" | dd of="$pack" bs=1 seek=60 conv=notrunc 2>/dev/null
code=0
run verify --level content --all || code=$?
((code == 4)) || fail "verify ended with exit code $code instead of 4"
printf '  Exit code %s: the damage is found, and what it hits is named.\n' "$code"

say "11. The files are still here, so the next backup stores again what was damaged."
run backup --files "$tree" --name code
run verify code@3 --level content

# shellcheck source=databases.sh
. "$here/databases.sh"

say "Done in $(seconds "$began"). Nothing is left behind: $(size "$work") in a temporary directory are removed now."
