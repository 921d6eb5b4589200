NAME="kills"
def case(seed): pass
