"""A model folder as an ONNX file with dynamic int8 by optimum or sentence-transformers: python hugging_face_file.py optimum|sentence-transformers FOLDER OUT"""
import shutil, sys
from pathlib import Path

how, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if how == "optimum":
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    ORTModelForSequenceClassification.from_pretrained(folder, export=True).save_pretrained(out/"float")
    recipe = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(out/"float").quantize(save_dir=out, quantization_config=recipe)
else:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model
    own = out/"model"
    own.mkdir(parents=True)
    for f in folder.iterdir():
        if f.is_file(): shutil.copy(f, own)
    export_dynamic_quantized_onnx_model(CrossEncoder(str(own), backend="onnx"), "avx512_vnni", str(out))
