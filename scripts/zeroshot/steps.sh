# Sourced by the scripts of this folder. What is finished is skipped, what was stopped goes on.

# seen_classes CONFIG SPLIT [key=value ...]: step 1 and its evaluation
seen_classes() {
    launch train_base.py "$1" split="$2" "${@:3}"
    python eval.py "$1" split="$2" method=step1 "${@:3}"
}

# all_classes CONFIG SPLIT "METHODS" [key=value ...]: each method and its evaluation; NAME_strict is strict_unseen=true
all_classes() {
    local config=$1 split=$2 name method options
    for name in $3; do
        method=${name%_strict}
        options=(split="$split" method="$method" "${@:4}")
        [ "$name" = "$method" ] || options+=(strict_unseen=true)
        [ "$method" != zs3_gc ] || options+=(${GC_EPOCHS:+zs3.epochs=$GC_EPOCHS})
        case $method in
            # steps of the generator do not pair up over processes: step 2 is of one, or takes zs3.pace=batch
            zs3 | zs3_gc) python train_zeroshot.py "$config" "${options[@]}" ;;
            *) launch train_zeroshot.py "$config" "${options[@]}" ;;
        esac
        python eval.py "$config" "${options[@]}"
    done
}
