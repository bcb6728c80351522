#!/usr/bin/env bash
# Install edgefetal on a flashed Jetson, from a folder of wheels and with no internet. docs/boards.md tells the whole way.
#
#   sudo ./install.sh [--wheels DIR] [--dry-run]
#
# It may be run again: what is there already is kept or brought up to date. Where the board is not fit it changes nothing
# and says why. Exit codes: 0 done, 1 done but `edgefetal doctor` found something, 2 wrong usage, 3 the board lacks
# something. Tests set EDGEFETAL_ROOT to the folder below which the board's files are read.
set -euo pipefail

readonly PROGRAM=/opt/edgefetal STATE=/var/lib/edgefetal SETTINGS=/etc/edgefetal OWNER=edgefetal
readonly UNIT=/etc/systemd/system/edgefetal.service
readonly OLDEST_PYTHON=3.10 OLDEST_TENSORRT=10.3
readonly ROOT=${EDGEFETAL_ROOT:-}
wheels=$(dirname -- "$0")/wheels
dry_run=no

say() { printf '%s\n' "$*"; }
refuse() {
  local code=$1
  shift
  printf 'Error: %s\n' "$*" >&2
  exit "$code"
}
# Do a thing, or with --dry-run say it.
act() {
  if [[ $dry_run == yes ]]; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}
# Write standard input to a file, or with --dry-run say so.
act_write() {
  if [[ $dry_run == yes ]]; then
    cat >/dev/null
    say "would write: $1"
  else
    cat >"$1"
  fi
}
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }
# The one file that a pattern names; nothing where there is none.
one_of() { { compgen -G "$1" || true; } | sort -V | tail -n 1; }

read_arguments() {
  while (($#)); do
    case $1 in
      --wheels)
        (($# > 1)) || refuse 2 "--wheels needs a folder; see --help."
        wheels=$2
        shift
        ;;
      --dry-run) dry_run=yes ;;
      -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
      *) refuse 2 "there is no option $1; see --help." ;;
    esac
    shift
  done
}

# The checks. None of them changes anything.

check_release() {
  local file=$ROOT/etc/nv_tegra_release line
  [[ -r $file ]] || refuse 3 "this is no Jetson: there is no /etc/nv_tegra_release. On another computer install with \
pip install edgefetal."
  line=$(head -n 1 "$file")
  # As in "# R36 (release), REVISION: 4.3, GCID: ..."
  [[ $line =~ ^\#\ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9.]+) ]] ||
    refuse 3 "/etc/nv_tegra_release cannot be read: it begins with '$line'. Flash JetPack 6.2 or 7.2."
  major=${BASH_REMATCH[1]}
  release=$major.${BASH_REMATCH[2]}
  case $release in
    36.4.[0-2]*) jetpack=6.1 fetch=6.2 ;;
    36.4.3) jetpack=6.2 fetch=6.2 ;;
    36.4.*) jetpack=6.2.1 fetch=6.2 ;;
    36.5*) jetpack=6.2.2 fetch=6.2 ;;
    36.*) jetpack=6.0 fetch=6.2 ;;
    38.*) jetpack="7.0 or 7.1" fetch=7.2 ;;
    39.2.0) jetpack=7.2 fetch=7.2 ;;
    39.*) jetpack="7.2.1 or later" fetch=7.2 ;;
    *)
      ((major > 39)) || refuse 3 "L4T $release is JetPack 5 or older, with a Python before $OLDEST_PYTHON and a TensorRT \
before $OLDEST_TENSORRT. Flash JetPack 6.2 or 7.2; a board that takes neither cannot run edgefetal."
      jetpack="after 7.2" fetch=7.2
      ;;
  esac
  say "JetPack $jetpack (L4T $release)."
  [[ $release == 36.4.* || $release == 36.5* || $release == 39.* ]] ||
    say "Note: edgefetal is made for JetPack 6.2 and 7.2; the checks that follow decide."
}

check_python() {
  python=$ROOT/usr/bin/python3
  [[ -x $python ]] || refuse 3 "there is no /usr/bin/python3; flash the board anew, with JetPack 6.2 or 7.2."
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  at_least "$version" "$OLDEST_PYTHON" ||
    refuse 3 "/usr/bin/python3 is Python $version, and edgefetal needs $OLDEST_PYTHON. Flash JetPack 6.2 or 7.2."
  say "Python $version."
  # Engines and libraries of one Python do not load in another, and the folder may hold what nobody has twice.
  local cfg=$ROOT$PROGRAM/pyvenv.cfg
  if [[ -r $cfg ]] && ! grep -Eq "^version *= *${version//./\\.}(\.|\$)" "$cfg"; then
    refuse 3 "$PROGRAM was installed with another Python than $version. Move it away, then run this again: \
sudo mv $PROGRAM $PROGRAM.old"
  fi
}

check_tensorrt() {
  local found
  found=$("$python" -c 'import tensorrt; print("version", tensorrt.__version__)' 2>&1 | tail -n 1) || true
  case $found in
    version\ *) found=${found#version } ;;
    *"No module named 'tensorrt'"*)
      refuse 3 "TensorRT's Python package is missing. With internet: sudo apt-get install python3-libnvinfer (or all of \
JetPack: nvidia-jetpack)."
      ;;
    *) refuse 3 "TensorRT is installed and does not load ($found). Install all of JetPack anew: sudo apt-get install \
--reinstall nvidia-jetpack." ;;
  esac
  at_least "$found" "$OLDEST_TENSORRT" || refuse 3 "TensorRT is $found, and edgefetal needs $OLDEST_TENSORRT, which \
JetPack 6.1 brought. Flash JetPack 6.2 or 7.2."
  say "TensorRT $found."
}

check_wheels() {
  local fill="On a workstation: python devices/board/wheels.py --jetpack $fetch --out wheels" tag=cp${version/./}
  [[ -d $wheels ]] || refuse 2 "there is no folder of wheels at $wheels. $fill"
  wheels=$(cd -- "$wheels" && pwd)
  [[ -n $(one_of "$wheels/edgefetal-*.whl") ]] || refuse 2 "$wheels holds no wheel of edgefetal. $fill"
  installer=$(one_of "$wheels/pip-*.whl")
  [[ -n $installer ]] || refuse 2 "$wheels holds no wheel of pip, which installs the rest. $fill"
  [[ -n $(one_of "$wheels/numpy-*-$tag-*aarch64.whl") ]] ||
    refuse 2 "$wheels holds wheels for another board than this one with Python $version. $fill"
  say "Wheels: $wheels."
}

# PyCUDA is TensorRT's way to the GPU's memory. It has no wheels, so it is built here where that is possible.
choose_cuda() {
  local cuda=$ROOT/usr/local/cuda lacks=()
  if [[ -n $(one_of "$wheels/pycuda-*.whl") ]]; then
    cuda_package=pycuda
  else
    [[ -n $(one_of "$wheels/pycuda-*.tar.gz") ]] || lacks+=("its source in $wheels")
    [[ -x $cuda/bin/nvcc ]] || lacks+=("CUDA's compiler")
    [[ -r $cuda/include/curand.h ]] || lacks+=("CUDA's headers")
    [[ -r $ROOT/usr/include/python$version/Python.h ]] || lacks+=("python3-dev")
    [[ -x $ROOT/usr/bin/g++ ]] || lacks+=("g++")
    if ((${#lacks[@]} == 0)); then
      cuda_package=pycuda
    elif [[ -n $(one_of "$wheels/cuda_bindings-*-cp${version/./}-*aarch64.whl") ]]; then
      cuda_package="cuda-python"
      say "PyCUDA cannot be built here (lacks $(printf '%s, ' "${lacks[@]}" | sed 's/, $//')); cuda-python is used."
    else
      refuse 3 "neither PyCUDA nor cuda-python can be installed: building PyCUDA lacks $(printf '%s, ' "${lacks[@]}" |
        sed 's/, $//'), and $wheels has no cuda-python for Python $version. With internet: sudo apt-get install \
nvidia-jetpack python3-dev g++"
    fi
  fi
  say "Way to the GPU: $cuda_package."
}

# What is done.

install_program() {
  local environment=$PROGRAM/bin/python wanted=("edgefetal") pip
  # JetPack 6's modules were built beside NumPy 1.
  if ((major == 36)); then wanted+=("numpy<2"); fi
  # Without pip of its own, because the package with Debian's copy of it may be missing; TensorRT is the system's.
  [[ -x $ROOT$PROGRAM/bin/python ]] || act "$python" -m venv --system-site-packages --without-pip "$PROGRAM"
  pip=(env PIP_CONFIG_FILE=/dev/null "$environment" "$installer/pip" install --quiet --disable-pip-version-check
    --no-index --find-links "$wheels")
  act "${pip[@]}" --upgrade "${wanted[@]}"
  # The same version may have been built anew.
  act "${pip[@]}" --force-reinstall --no-deps edgefetal
  if [[ $cuda_package == pycuda ]]; then
    say "PyCUDA: compiling it takes minutes."
    act env PATH="/usr/local/cuda/bin:$PATH" CUDA_ROOT=/usr/local/cuda "${pip[@]:1}" pycuda
  else
    act "${pip[@]}" cuda-python
  fi
  act ln -sf "$PROGRAM/bin/edgefetal" /usr/local/bin/edgefetal
}

install_service() {
  local groups=video
  if grep -q '^render:' "$ROOT/etc/group" 2>/dev/null; then groups=video,render; fi
  if ! grep -q "^$OWNER:" "$ROOT/etc/passwd" 2>/dev/null; then
    act useradd --system --home-dir "$STATE" --shell /usr/sbin/nologin "$OWNER"
  fi
  act usermod --append --groups "$groups" "$OWNER"
  act install -d -m 0700 -o "$OWNER" -g "$OWNER" "$STATE"
  act install -d -m 0755 "$SETTINGS"
  if [[ ! -e $ROOT$SETTINGS/service.env ]]; then
    printf '%s\n' "# What the service runs; docs/service.md" BUNDLE=active SOURCE=v4l2:/dev/video0 \
      "OPTIONS=--depth-mm 160 --store $STATE/exams --port 9788" | act_write "$SETTINGS/service.env"
  fi
  if [[ $dry_run == yes ]]; then
    say "would write: $UNIT (with SupplementaryGroups=${groups/,/ })"
  else
    "$PROGRAM/bin/python" -m edgefetal_runtime.service.unit |
      sed "s/^SupplementaryGroups=.*/SupplementaryGroups=${groups/,/ }/" >"$UNIT"
  fi
  act systemctl daemon-reload
}

finish() {
  local code=0
  # As the service will: the user who must reach the GPU.
  act runuser -u "$OWNER" -- env -C "$STATE" HOME="$STATE" "$PROGRAM/bin/edgefetal" doctor || code=$?
  say "" "Installed. What comes next, as docs/boards.md tells:" \
    "  sudo edgefetal keys trust NAME.pub --trusted $SETTINGS/trusted   whose bundles this board may run" \
    "  sudo -H -u $OWNER edgefetal finish BUNDLE         build the engine here, prove it, and make it the active one" \
    "  sudo -H -u $OWNER edgefetal run active SOURCE     examine" \
    "  sudo systemctl enable --now edgefetal             or have it run by itself ($SETTINGS/service.env says what)"
  ((code == 0)) || refuse 1 "\`edgefetal doctor\` found what is written above; mend it before you finish a bundle."
}

main() {
  read_arguments "$@"
  [[ $dry_run == yes || $(id -u) == 0 ]] || refuse 2 "this needs root; run it with sudo, or look first with --dry-run."
  check_release
  check_python
  check_tensorrt
  check_wheels
  choose_cuda
  install_program
  install_service
  finish
}

main "$@"
