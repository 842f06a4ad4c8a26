"""A model folder as a TFLite file by litert-torch and its dynamic int8 recipe: python litert_torch_file.py FOLDER SEQ_LEN OUT"""
import sys
import litert_torch, torch
from ai_edge_quantizer import quantizer, recipe
from transformers import AutoModelForSequenceClassification

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Logits(torch.nn.Module):
    "The classifier as int32 ids in, logits out."
    def __init__(self, net): super().__init__(); self.net = net
    def forward(self, **ids): return {"logits": self.net(**{k: v.long() for k, v in ids.items()}).logits}


folder, seq_len, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
net = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
sample = {n: torch.ones(1, seq_len, dtype=torch.int32) for n in NAMES}
litert_torch.convert(Logits(net).eval(), sample_kwargs=sample).export(out + ".float")
q = quantizer.Quantizer(out + ".float")
q.load_quantization_recipe(recipe.dynamic_wi8_afp32())
q.quantize().export_model(out, overwrite=True)
