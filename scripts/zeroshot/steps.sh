# Sourced by the scripts of this folder; the functions add steps, `run_steps` runs them.

# seen_classes CONFIG SPLIT [key=value ...]: step 1 and its evaluation
seen_classes() {
    step train_base.py "$1" split="$2" "${@:3}"
    step_alone eval.py "$1" split="$2" method=step1 "${@:3}"
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
            # processes would draw different numbers of generator steps: one process, or zs3.pace=batch
            zs3 | zs3_gc) step_alone train_zeroshot.py "$config" "${options[@]}" ;;
            *) step train_zeroshot.py "$config" "${options[@]}" ;;
        esac
        step_alone eval.py "$config" "${options[@]}"
    done
}
