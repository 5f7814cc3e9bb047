"""Image, sequential CIFAR-10 and sequential MNIST: pictures as sequences of pixels."""
