"""Makes models/digits: runs the demo and keeps its pruned int8 model with a card that says how it was made."""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tfcompress import demo
from tfcompress.system import write_atomically


def main() -> int:
    folder = ROOT / "models" / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        code = demo.main([f"--output={made}", "--seed=0"])
        if code:
            return code
        record = json.loads((made / "demo.json").read_text())
        shutil.copyfile(made / "int8_pruned_qat.tflite", folder / "digits_int8.tflite")
        shutil.copyfile(made / "pruned_qat.keras", folder / "digits.keras")
    measured = {Path(row["model"]).stem: row for row in record["measurements"]}
    kept, reference = measured["int8_pruned_qat"], measured["float32"]
    card = {
        "name": "digits",
        "task": "classify handwritten digits, 8x8 grey pictures in [0, 1], into 10 classes",
        "data": "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, CC BY 4.0), by scikit-learn; "
        "540 of 1797 pictures held back",
        "recipe": "python tools/make_digits_model.py (tfcompress/demo.py: 40 epochs, polynomial magnitude pruning to "
        "75 % in epochs 4 to 22, quantization-aware training from epoch 25, seed 0)",
        "target": "cpu-int8",
        "accuracy": kept["accuracy"],
        "float32_accuracy": reference["accuracy"],
        "samples": kept["samples"],
        "weight_sparsity": record["target_sparsity"],
        "size_bytes": kept["size_bytes"],
        "gzip_bytes": kept["gzip_bytes"],
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
            if path.suffix in (".keras", ".tflite")
        },
    }
    write_atomically(folder / "card.json", json.dumps(card, indent=2) + "\n", overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
