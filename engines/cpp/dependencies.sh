#!/bin/sh
# What the C++ runtime needs, on Debian: installs packages, and lays ONNX Runtime out in FOLDER (include/ and lib/).
#
#   [CLANG=1] engines/cpp/dependencies.sh FOLDER [WHEEL]
#
# CLANG=1 adds the compiler that has sanitizers and libFuzzer.
# WHEEL is the folder of the Python package onnxruntime, whose shared library is then the one used, so that C++ and
# Python run the same; without it Debian's library is. Headers are those of libonnxruntime-dev: from this release of
# Debian, or, where that has none yet, from trixie's. ONNX Runtime's C interface is stable: older headers go with a newer
# library. What is laid out in FOLDER already is left alone: a release of ONNX Runtime, unpacked there, is as good.
set -eu
folder=$1
wheel=${2:-}
packages="g++ cmake ninja-build pkg-config nlohmann-json3-dev libjpeg-dev libpng-dev libwebp-dev libgtest-dev libutf8proc-dev libssl-dev"
if [ -n "${CLANG:-}" ]; then
    [ "$(id -u)" != 0 ] || dpkg-query -W clang >/dev/null 2>&1 || apt-get update -qq
    release=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')  # which its libraries are named after
    packages="$packages clang libclang-rt-${release:?no package clang is known; run: sudo apt-get update}-dev"
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "expected Debian's packages$missing, found them missing; run: sudo apt-get install$missing" >&2
        exit 2
    fi
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

[ -e "$folder/include/onnxruntime_cxx_api.h" ] && [ -e "$folder/lib/libonnxruntime.so" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sources" "$work/lists/partial" "$work/archives/partial" "$folder/include" "$folder/lib"
options="-o Dir::Cache::archives=$work/archives -o APT::Sandbox::User=root -o Debug::NoLocking=1"
if [ -z "$(apt-cache policy libonnxruntime-dev 2>/dev/null | sed -n 's/ *Candidate: //p' | grep -v none)" ]; then
    system=$(. /etc/os-release && echo "$ID")
    if [ "$system" != debian ]; then
        echo "expected a package libonnxruntime-dev, found none for $system; unpack a release of ONNX Runtime, its include/" \
            "and lib/, into $folder" >&2
        exit 2
    fi
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ -f "$file" ] || continue
        sed "s/$release-updates//g; s/$release/trixie/g" "$file" >"$work/sources/$(basename "$file")"
    done
    options="$options -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$work/sources -o Dir::State::Lists=$work/lists -o Dir::Cache=$work"
    # shellcheck disable=SC2086
    apt-get $options -qq update
fi
names=libonnxruntime-dev
# shellcheck disable=SC2086
[ -n "$wheel" ] || names="$names $(apt-cache $options depends libonnxruntime-dev | sed -n 's/.*Depends: \(libonnxruntime[0-9.]*\)$/\1/p')"
# shellcheck disable=SC2086
(cd "$work" && apt-get $options -qq download $names)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/unpacked"; done
find "$work/unpacked/usr/include" -name '*.h' -exec cp {} "$folder/include" \;
if [ -n "$wheel" ]; then
    library=$(find "$wheel" -name 'libonnxruntime.so.1*' | head -n 1)
    [ -n "$library" ] || { echo "expected libonnxruntime.so.1 in $wheel, found none; pip install onnxruntime" >&2; exit 2; }
    ln -sf "$library" "$folder/lib/libonnxruntime.so.1"
else
    find "$work/unpacked/usr/lib" -name 'libonnxruntime*' -exec cp -a {} "$folder/lib" \;
fi
ln -sf libonnxruntime.so.1 "$folder/lib/libonnxruntime.so"
