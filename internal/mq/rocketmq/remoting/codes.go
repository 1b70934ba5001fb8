package remoting

// Requests, as RocketMQ's RequestCode numbers them.
const (
	PullMessage      = 11
	UpdateTopic      = 17
	GetBrokerConfig  = 26
	GetBrokerRuntime = 28
	GetMaxOffset     = 30
	GetMinOffset     = 31
	GetRoute         = 105
	GetCluster       = 106
	UpdateGroup      = 200
	GetGroups        = 201
	DeleteGroup      = 207
	DropTopic        = 215 // at a broker
	ForgetTopic      = 216 // at a name server
)

// Answers, as its ResponseCode numbers them.
const (
	OK            = 0
	TopicNotExist = 17
	PullNotFound  = 19
	PullRetry     = 20
	PullMoved     = 21
)
