package httpentry

import (
	"context"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// execute runs one command for the caller at his home Logic and returns the protobuf body of
// its answer.
func (s *Server) execute(ctx context.Context, who caller, cmd im.Cmd, body []byte, requestID string) ([]byte, error) {
	return s.executor.Run(ctx, &tier.ExecuteRequest{
		Tenant: who.tenant, Uid: who.uid, Cmd: uint32(cmd), Body: body, RequestId: requestID, System: who.app != "",
	})
}
