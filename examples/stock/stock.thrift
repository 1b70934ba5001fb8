// The stock of a warehouse, as another team has it: it knows nothing of Hongyan but the three
// metainfo values that say on whose behalf it is called.
namespace go stock

include "places.thrift"

// OutOfStock is an answer too: whoever asks gets its message.
exception OutOfStock {
  1: required string message
  2: i64 left
}

struct Item {
  1: required string sku
  2: i64 count
  3: places.Unit unit = places.Unit.PIECE
  4: optional list<places.Place> places
  5: optional map<string, i32> reserved
  6: optional binary label
}

struct LookRequest {
  1: required string sku
  2: optional bool places
}

struct ReserveRequest {
  1: required string sku
  2: i64 count = 1
}

service Inventory {
  Item Look(1: LookRequest request)
  Item Reserve(1: ReserveRequest request) throws (1: OutOfStock out)
  i64 Total(1: string sku, 2: places.Unit unit)
  void Ping()
}
