# Sourced by the scripts of this folder; the functions add steps, `run_steps` runs them.

# train_and_score CONFIG METHOD [key=value ...]; the array EVAL holds the options of eval.py
train_and_score() {
    step train_weakshot.py "$1" method="$2" "${@:3}"
    step_alone eval.py "$1" method="$2" save_predictions=true "${EVAL[@]}"
}

# all_stages CONFIG SPLIT "METHODS" "OPTIONS OF SIMFORMER" "OPTIONS OF PSEUDO-LABELS" [key=value ...]
# METHODS: single, simformer, retrain (after its pseudo-labels), supervised
all_stages() {
    local config=$1 split=$2 method common
    common=(split="$split" "${@:6}")
    EVAL=("${common[@]}")
    for method in $3; do
        case $method in
            simformer) train_and_score "$config" simformer $4 "${common[@]}" ;;
            retrain)
                step train_weakshot.py "$config" method=simformer stage=pseudo $5 "${common[@]}"
                train_and_score "$config" retrain "${common[@]}"
                ;;
            *) train_and_score "$config" "$method" "${common[@]}" ;;
        esac
    done
}
