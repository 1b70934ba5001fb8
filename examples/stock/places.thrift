// What several services of the warehouse have in common.
namespace go places

enum Unit {
  PIECE = 1
  KILOGRAM = 2
}

struct Place {
  1: required string warehouse
  2: optional string shelf
}
