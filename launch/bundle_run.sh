#!/usr/bin/env bash
# Runs a command with the program, Open MPI and libraries of the folder that this file lies in (launch/bundle.sh):
#
#   run lora-dist info
#   run mpirun -np 2 lora-dist --config F
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LRD_BUNDLE=$here PATH=$here/bin:$PATH LRD_PROGRAM=$here/bin/lora-dist
# Open MPI and PMIx look for their parts where they were installed, unless told. One machine: nothing to start elsewhere.
export OPAL_PREFIX=$here PMIX_INSTALL_PREFIX=$here
export OPAL_PKGDATADIR=$here/share/openmpi OPAL_SYSCONFDIR=$here/etc
export OMPI_MCA_mca_base_component_path=$here/lib/openmpi PMIX_MCA_mca_base_component_path=$here/lib/pmix
export OMPI_MCA_plm=${OMPI_MCA_plm:-isolated}
((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# CUDA's libraries: each from the first of python3's wheels (the ones torch uses) and the toolkit that has it.
places() {
    command -v python3 >/dev/null &&
        python3 -c 'import glob, sys; print(*(d for p in sys.path if p for d in glob.glob(p + "/nvidia/*/lib")), sep="\n")'
    printf '%s\n' "${CUDA_HOME:-/usr/local/cuda}"/{lib64,lib} /usr/local/cuda/lib64
}
if [[ -s $here/lib/cuda-libraries ]]; then
    mapfile -t folders < <(places)
    while read -r library; do
        for folder in "${folders[@]}"; do
            if [[ -e $folder/$library ]]; then
                LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
                break
            fi
        done
    done <"$here/lib/cuda-libraries"
    export LD_LIBRARY_PATH
fi
exec "$@"
