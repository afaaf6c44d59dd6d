#!/usr/bin/env bash
# Owns `make image`: builds deploy/Dockerfile without a container engine, starts what came of it as its own user on a
# read-only root, and writes archive and bill of materials into target/image. As root; on Debian.
# The first stage wants an image of Rust from a registry; here the program is built on this machine, from a folder that holds
# what that stage copies and nothing else, and handed in as that stage. The base, debian:bookworm-slim, is made from Debian's packages.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$project"
as_root || die "only root can enter the folders of an image"
scripts/install.sh image

state=$(mktemp -d /var/tmp/keylane-image.XXXXXX)
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=target/image
base=.keylane/image/bookworm.tar
clean_up() {
  trap '' INT TERM
  ! [[ -d $state/storage ]] || buildah_here umount --all >/dev/null || say "something is still mounted below $state"
  rm -rf --one-file-system "$state"
}
trap clean_up EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

buildah_here() {
  BUILDAH_ISOLATION=chroot buildah --storage-driver vfs --root "$state/storage" --runroot "$state/run" "$@"
}
build() { buildah_here bud --pull=never --quiet "$@" >>"$state/log" 2>&1 || die "the build failed: $(tail -n 30 "$state/log")"; }

scripts/recipe.sh "$project" "$state/build"
CARGO_TARGET_DIR=$target foreground cargo build --locked --release --bin keylane --manifest-path "$state/build/Cargo.toml" >&2
mkdir -p "$state"/{program/out,base} "$out" "${base%/*}"
strip --strip-debug -o "$state/program/out/keylane" "$target/release/keylane"

if [[ ! -s $base ]]; then
  say "making the base"
  foreground mmdebstrap --quiet --variant=minbase --format=tar bookworm "$base.new" >&2
  mv "$base.new" "$base"
fi
say "building the image"
ln "$base" "$state/base/base.tar" 2>/dev/null || cp "$base" "$state/base/base.tar"
printf 'FROM scratch\nADD base.tar /\n' >"$state/base/Dockerfile"
build --tag debian:bookworm-slim "$state/base"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# Of one commit the same image, as far as the base is the same.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
build --file deploy/Dockerfile --build-context "build=$state/program" \
  --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --label "org.opencontainers.image.created=$created" --tag keylane .

image_says() { buildah_here inspect --type image --format "$1" keylane; }
[[ $(image_says '{{.OCIv1.Config.User}} {{.OCIv1.Config.StopSignal}}') == "65532:65532 SIGTERM" ]] || die "the image names another user or signal"
[[ $(image_says '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}') == "$version" ]] || die "the image has no version"
[[ $(image_says '{{index .OCIv1.Config.Labels "org.opencontainers.image.created"}}') == "$created" ]] || die "the image does not say of when it is"
root=$(buildah_here mount "$(buildah_here from --pull-never keylane)")

# in_image COMMAND…: as the image's user; its root is read-only, and gone with the command's own mounts.
in_image() {
  # shellcheck disable=SC2016 # for the shell in there
  env -i PATH="$PATH" unshare -m --propagation private bash -euc '
    mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
    ! touch "$0/tried" 2>/dev/null
    exec chroot --userspec=65532:65532 "$0" "$@"' "$root" "$@"
}
said=$(in_image /usr/local/bin/keylane --version)
[[ $said == "keylane $version" ]] || die "the image says: $said"
grep -q '"openapi": "3' <<<"$(in_image /usr/local/bin/keylane openapi)" || die "the image does not print its API"
! [[ -e $root/bin/sh || -e $root/usr/bin/env ]] || die "there is more in the image than the program needs"

scripts/sbom.py "$root" >"$out/keylane.spdx.json"
rm -f "$out/keylane.oci.tar"
buildah_here push --quiet keylane "oci-archive:$out/keylane.oci.tar:keylane:$version" >>"$state/log"
say "$said runs as 65532 on a read-only root; $(du -sh "$root" | cut -f 1) unpacked, $(du -h "$out/keylane.oci.tar" | cut -f 1) packed: $out"
