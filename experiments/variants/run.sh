#!/bin/sh
# Trains every variant on the same 16,000 pairs with three seeds, and compares them on held-out prompts.
# Killed, it goes on where it was. Run it from the top of the repository, with the project's python first in PATH.
set -e
SEEDS=${SEEDS:-"1 2 3"}
MODELS=${MODELS:-"unet vit svd_unet svd_unet_raw e_unet svd_unet+unet denoiser_lora denoiser_copy"}
COMMON="prompts.seed=0 logger=csv $ARGS" # one set of pairs and of held-out prompts for all

for seed in $SEEDS; do
    networks=""
    for model in $MODELS; do
        case $model in
            svd_unet_raw) choice="model=svd_unet model.npnet.signs=raw" ;;
            denoiser_copy) choice="model=denoiser_lora model.npnet.rank=null" ;;
            *) choice="model=$model" ;;
        esac
        best="outputs/train/variants/$model-$seed/npnet/best"
        if [ ! -f "$best/README.md" ]; then
            python train.py name="variants/$model-$seed" $choice seed="$seed" trainer.max_epochs=2 \
                evaluate=false sample_every_n_epochs=0 $COMMON
        fi
        networks="$networks+evaluation.checkpoints.$(echo "$model" | tr + _)=$best "
    done
    python evaluate.py name="variants/seed-$seed" "evaluation.methods=[standard]" $networks \
        prompts.count=2000 '~metric.reward' $COMMON
done
python experiments/variants/table.py
