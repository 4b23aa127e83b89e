"""Sentence encoders over ONNX Runtime, OpenVINO or llama.cpp behind one interface, the fastest chosen per machine."""
