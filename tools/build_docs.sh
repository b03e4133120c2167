#!/usr/bin/env bash
# Build the pages and the API pages as HTML into build/docs/html; called by `make docs`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Sphinx reads a copy, which has a page more for each module that is public.
SOURCE=build/docs/source
ROOMS=(loaders shards ops models tasks training evaluation)
MODULES=(batch views config shards.making.convert shards.making.report runs.read runs.sweep randomness sampling fields errors)

# write_page MODULE OPTION...: ask for all that a module makes public.
write_page() {
    local name=fastssl.$1
    shift
    {
        printf '%s\n%s\n\n.. automodule:: %s\n   :members:\n' "$name" "${name//?/=}" "$name"
        printf '   %s\n' "$@"
    } > "$SOURCE/docs/api/$name.rst"
}

rm -rf build/docs
mkdir -p "$SOURCE/csrc"
cp -r README.md CONTRIBUTING.md CHANGELOG.md docs "$SOURCE"
cp csrc/README.md "$SOURCE/csrc"
mkdir "$SOURCE/docs/api"
# A room's public names come from its files.
for room in "${ROOMS[@]}"; do write_page "$room" :imported-members:; done
for module in "${MODULES[@]}"; do write_page "$module"; done
.venv/bin/python -m sphinx -q -W --keep-going -c docs "$SOURCE" build/docs/html
printf '[docs] %s/build/docs/html/README.html\n' "$PWD"
