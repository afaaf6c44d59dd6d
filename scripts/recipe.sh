#!/usr/bin/env bash
# Owns what the image's first stage gets to see: recipe.sh ROOT FOLDER
# Fills FOLDER as the COPY lines of ROOT/deploy/Dockerfile do, from what Dockerfile.dockerignore lets through, and fails
# where code asks for a file that is not among it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
root=$1 folder=$2 recipe=$1/deploy/Dockerfile
sent=$folder.sent
mkdir -p "$sent" "$folder"

while read -r path; do
  (cd "$root" && cp -r --parents "$path" "$sent") || die "$recipe.dockerignore lets through what is not there: $path"
done < <(sed -n 's/^!//p' "$recipe.dockerignore")

while read -r -a words; do
  to=$folder/${words[-1]}
  for from in "${words[@]:1:${#words[@]}-2}"; do
    [[ -e $sent/$from ]] || die "$recipe copies $from, which its ignore file holds back"
    mkdir -p "$(dirname "${to}x")"
    if [[ -d $sent/$from ]]; then cp -r "$sent/$from/." "$to"; else cp "$sent/$from" "$to"; fi
  done
done < <(sed -n '1,/^FROM debian/{/^COPY /p}' "$recipe")

# It reads the manifest as strictly as a build does, and builds nothing.
cargo fetch --quiet --locked --manifest-path "$folder/Cargo.toml" --target "$(rustc --print host-tuple)" ||
  die "the manifest wants more than the image's recipe copies"

# asked PATTERN FILE…: what macros of that name are given, as FILE:PATH.
asked() {
  local pattern=$1
  shift
  # It ends with 1 where nothing is asked for, with more where it could not look.
  { grep -HzoP "$pattern"'!\(\s*"\K[^"]+' "$@" || (($? == 1)); } | tr '\0' '\n'
}
mapfile -t code < <(find "$folder/src" -name '*.rs' ! -name '*_tests.rs')
{
  # One is told a path from its own file, the other from the package.
  asked 'include(_str|_bytes)?' "${code[@]}" | while IFS=: read -r file path; do echo "$(dirname "$file")/$path"; done
  asked 'migrate' "${code[@]}" | while IFS=: read -r _ path; do echo "$folder/$path"; done
} >"$folder.asked"
[[ -s $folder.asked ]] || die "no code asks for a file: this looks for the wrong thing"
while read -r path; do
  [[ -e $path ]] || die "code reads $(realpath -m --relative-to "$folder" "$path"), which the image's recipe does not copy"
done <"$folder.asked"
rm -rf --one-file-system "$sent" "$folder.asked"
