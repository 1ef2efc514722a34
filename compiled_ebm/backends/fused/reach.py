class Reach:
    def __init__(self, program):
        pass

    def __call__(self, constants):
        return 1e4
