# Sourced by the scripts of this folder. What is finished is skipped, what was stopped goes on.

# train_and_score CONFIG METHOD [key=value ...]; EVAL holds options of eval.py alone
train_and_score() {
    launch train_weakshot.py "$1" method="$2" "${@:3}"
    python eval.py "$1" method="$2" save_predictions=true "${EVAL[@]}"
}

# all_stages CONFIG SPLIT "METHODS" "OPTIONS OF SIMFORMER" "OPTIONS OF PSEUDO-LABELS" [key=value ...]
# METHODS of single, simformer, retrain (with the pseudo-labels before it) and supervised; splits share no stage but supervised
all_stages() {
    local config=$1 split=$2 method common
    common=(split="$split" "${@:6}")
    EVAL=("${common[@]}")
    for method in $3; do
        case $method in
            simformer) train_and_score "$config" simformer $4 "${common[@]}" ;;
            retrain)
                launch train_weakshot.py "$config" method=simformer stage=pseudo $5 "${common[@]}"
                train_and_score "$config" retrain "${common[@]}"
                ;;
            *) train_and_score "$config" "$method" "${common[@]}" ;;
        esac
    done
}
