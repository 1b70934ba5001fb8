package rpc

import (
	"context"
	"fmt"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/genericclient"
	"github.com/cloudwego/kitex/pkg/generic"
	"github.com/cloudwego/kitex/pkg/kerrors"

	"hongyan/idl/code"
)

// Keys of the Kitex metainfo (transient values, one hop) that tell a service of the
// platform on whose behalf it is called: metainfo.GetValue(ctx, rpc.CallerUID).
const (
	CallerTenant    = "HONGYAN_TENANT"
	CallerUID       = "HONGYAN_UID"
	CallerRequestID = "HONGYAN_REQUEST_ID"
)

// OnBehalf is ctx for calls of a Foreign that are made for a user.
func OnBehalf(ctx context.Context, tenant, uid, requestID string) context.Context {
	ctx = metainfo.WithValue(ctx, CallerTenant, tenant)
	ctx = metainfo.WithValue(ctx, CallerUID, uid)
	if requestID == "" {
		return ctx
	}
	return metainfo.WithValue(ctx, CallerRequestID, requestID)
}

// Foreign is a protobuf service over Kitex of which no generated code exists here.
type Foreign struct {
	addr string
	c    genericclient.Client
}

// DialForeign returns the service (its name within its protobuf package) at addr.
func DialForeign(addr, pkg, service string, opt Options) (*Foreign, error) {
	c, err := dial(addr, service, opt, func(name string, opts ...client.Option) (genericclient.Client, error) {
		return genericclient.NewClient(name, generic.BinaryPbGeneric(service, pkg), opts...)
	})
	if err != nil {
		return nil, err
	}
	return &Foreign{addr, c}, nil
}

// Refusal is a status that a service answered instead of a result: a status of its own
// numbering, which is no code.Code.
type Refusal struct {
	Status  int32
	Message string
}

func (r *Refusal) Error() string { return fmt.Sprintf("status %d: %s", r.Status, r.Message) }

// Call runs a method with an encoded request and returns the encoded answer. Its error is a
// *Refusal, or a *code.Error as the generated interfaces give it (see Down).
func (f *Foreign) Call(ctx context.Context, method string, request []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, code.From(err)
	}
	answer, err := f.c.GenericCall(ctx, method, request)
	if biz, ok := kerrors.FromBizStatusError(err); ok {
		return nil, &Refusal{Status: biz.BizStatusCode(), Message: biz.BizMessage()}
	}
	if err != nil {
		return nil, clientError(f.addr, err)
	}
	body, ok := answer.([]byte)
	if !ok {
		return nil, code.Errorf(code.Internal, "%s: kitex answered with a %T", f.addr, answer)
	}
	return body, nil
}
