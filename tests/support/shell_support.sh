# What shell tests share: source it first.

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# The whole test does not run, and why.
skip() {
  echo "SKIPPED: $*"
  exit 77
}

# A fresh folder, removed at exit.
make_temporary() {
  mktemp -d "${TMPDIR:-/tmp}/lrd-test.XXXXXX"
}
remove_at_exit() {
  trap "rm -rf '$1'" EXIT
}
