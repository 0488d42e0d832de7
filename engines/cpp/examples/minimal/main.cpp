#include <iostream>

#include <asap/asap.hpp>

int main() {
    auto model = asap::load("llava.bundle");  // picks TensorRT or ONNX Runtime
    std::cout << model->generate({"cat.png"}, "What is on the mat?").text << '\n';
}
