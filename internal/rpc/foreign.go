package rpc

import (
	"context"
	"fmt"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/genericclient"
	"github.com/cloudwego/kitex/pkg/generic"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote/connpool"

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

// Encoding of the bodies of a Foreign.
type Encoding string

// Encodings.
const (
	Protobuf Encoding = "protobuf"
	Thrift   Encoding = "thrift" // binary protocol; a body is the struct of arguments, or of the result
)

// ForeignService names a service of somebody else's IDL.
type ForeignService struct {
	Encoding Encoding
	Package  string // protobuf only
	Service  string // within its package
}

// Foreign is a service over Kitex of which no generated code exists here. What it forwards
// are bytes: it does not know the IDL, so a new IDL needs no new client.
type Foreign struct {
	addr string
	pool *connpool.LongPool
	c    genericclient.Client
}

// DialForeign returns the service at addr. Nothing is connected yet.
func DialForeign(addr string, to ForeignService, opt Options) (*Foreign, error) {
	var bodies generic.Generic
	switch to.Encoding {
	case Protobuf:
		bodies = generic.BinaryPbGeneric(to.Service, to.Package)
	case Thrift:
		bodies = generic.BinaryThriftGenericV2(to.Service)
	default:
		return nil, fmt.Errorf("dial %s: encoding %q is unknown", to.Service, to.Encoding)
	}
	// A pool of our own, because Kitex closes the one it makes only when the client is
	// collected, and services come and go while the process runs.
	opt = opt.withDefaults()
	pool := connpool.NewLongPool(to.Service, opt.idle())
	c, err := dial(addr, to.Service, opt, func(name string, opts ...client.Option) (genericclient.Client, error) {
		return genericclient.NewClient(name, bodies, append(opts, client.WithConnPool(pool))...)
	})
	if err != nil {
		_ = pool.Close()
		return nil, err
	}
	return &Foreign{addr, pool, c}, nil
}

// Close closes the connections. No call may be under way, none may follow.
func (f *Foreign) Close() {
	_ = f.pool.Close()
	_ = f.c.Close()
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
