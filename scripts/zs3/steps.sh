# Sourced by the scripts of this folder.
# zero_shot CONFIG SPLIT "METHODS" [key=value ...]: step 1, then each method and its evaluation; what is finished is skipped
zero_shot() {
    local config=$1 split=$2 method extra
    for method in step1 $3; do
        extra=()
        case $method in
            step1) launch train_base.py "$config" split="$split" "${@:4}" ;;
            *_strict) extra=(strict_unseen=true) ;;
        esac
        method=${method%_strict}
        case $method in zs3_gc) extra+=(${GC_EPOCHS:+zs3.epochs=$GC_EPOCHS}) ;; esac
        # steps of the generator do not pair up over processes, so that step 2 is of one, or takes zs3.pace=batch
        case $method in
            step1) ;;
            zs3*) python train_zeroshot.py "$config" split="$split" method="$method" "${@:4}" "${extra[@]}" ;;
            *) launch train_zeroshot.py "$config" split="$split" method="$method" "${@:4}" "${extra[@]}" ;;
        esac
        python eval.py "$config" split="$split" method="$method" "${@:4}" "${extra[@]}"
    done
}
