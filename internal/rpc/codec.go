package rpc

import (
	"context"
	"errors"
	"strings"

	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/codec"
	"github.com/cloudwego/kitex/pkg/remote/codec/perrors"
)

// serverCodec bounds what a server reads and not what it writes: a reply that exceeds the
// caller's own bound reaches him and is refused there as too large, where a bound on the
// server would cut the connection and look like a crash.
type serverCodec struct {
	bounded interface {
		remote.Codec
		remote.MetaDecoder
	}
	remote.Codec // unbounded
}

func newServerCodec(maxBody int) (remote.Codec, error) {
	bounded, ok := codec.NewDefaultCodecWithSizeLimit(maxBody).(interface {
		remote.Codec
		remote.MetaDecoder
	})
	if !ok {
		return nil, errors.New("kitex's codec no longer decodes in two stages")
	}
	return serverCodec{bounded, codec.NewDefaultCodec()}, nil
}

func (s serverCodec) Decode(ctx context.Context, m remote.Message, in remote.ByteBuffer) error {
	return s.bounded.Decode(ctx, m, in)
}

func (s serverCodec) DecodeMeta(ctx context.Context, m remote.Message, in remote.ByteBuffer) error {
	return s.bounded.DecodeMeta(ctx, m, in)
}

func (s serverCodec) DecodePayload(ctx context.Context, m remote.Message, in remote.ByteBuffer) error {
	return s.bounded.DecodePayload(ctx, m, in)
}

// tooLarge tells that this side refused to send or to read a body over its limit. Kitex
// has no type of its own for it.
func tooLarge(err error) bool {
	pe, ok := errors.AsType[perrors.ProtocolError](err)
	return ok && pe.TypeId() == perrors.InvalidData && strings.Contains(pe.Error(), "larger than the limit")
}
