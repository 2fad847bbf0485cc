"""Writes BERTs of transformers for our import, and what they give.

bert.py FOLDER: FOLDER/model (a BertModel with a WordPiece tokenizer in BERT's order), FOLDER/mlm.pth (a state dict of
BertForMaskedLM), and FOLDER/given.safetensors: pooled [CLS] of the lines of FOLDER/texts.txt, without [SEP].
"""

import sys

import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

folder = sys.argv[1]
torch.manual_seed(5)
torch.set_num_threads(1)
words = "the heart lungs are clear no effusion edema normal size of is and . ##s ##mal".split()
order = ["[PAD]", "[unused0]", "[unused1]", "[unused2]", "[unused3]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
tokenizer = Tokenizer(models.WordPiece({token: number for number, token in enumerate(order)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.decoder = decoders.WordPiece()
tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", order.index("[CLS]")), ("[SEP]", order.index("[SEP]"))]
)
config = transformers.BertConfig(
    # As many models have it, the table has more rows than the tokenizer tokens.
    vocab_size=len(order) + 3, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
    max_position_embeddings=64,
)


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


model = perturbed(transformers.BertModel(config))
model.save_pretrained(f"{folder}/model")
tokenizer.save(f"{folder}/model/tokenizer.json")
torch.save(perturbed(transformers.BertForMaskedLM(config)).state_dict(), f"{folder}/mlm.pth")
pooled = []
with open(f"{folder}/texts.txt") as file:
    for line in file.read().splitlines():
        ids = [order.index("[CLS]"), *tokenizer.encode(line, add_special_tokens=False).ids]
        with torch.no_grad():
            pooled.append(model(torch.tensor([ids])).pooler_output)
safetensors.torch.save_file({"pooled": torch.cat(pooled)}, f"{folder}/given.safetensors")
