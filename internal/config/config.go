// Package config fills a configuration struct from defaults, a YAML file, the control centre,
// HONGYAN_ environment variables and flags, each over the one before. An unknown key, wherever it
// stands, is an error: a key that is misspelt must not be a key that is ignored.
package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// EnvPrefix starts every environment variable that is configuration: the key entry.max_body
// is HONGYAN_ENTRY_MAX_BODY.
const EnvPrefix = "HONGYAN_"

// Sources says where values come from, in rising order of precedence.
type Sources struct {
	File string // YAML; empty = none
	// Overlay is what the control centre says: YAML with the keys of a file. OverlayName is what
	// errors call it; OverlayFixed are keys and sections that it must not name.
	Overlay      []byte
	OverlayName  string
	OverlayFixed []string

	Env   []string       // NAME=value, as os.Environ
	Flags map[string]any // key -> value, only flags that were given
	// EnvIgnored are HONGYAN_ variables that are not configuration (of tests, say).
	EnvIgnored []string
}

// Load overwrites dst, a pointer to a struct that holds the defaults, with what the sources
// say. Fields are named by koanf tags. Unmentioned fields keep their defaults.
func Load(dst any, src Sources) error {
	k := koanf.New(".")
	if src.File != "" {
		if err := k.Load(file.Provider(src.File), yaml.Parser()); err != nil {
			var path *os.PathError
			if errors.As(err, &path) {
				return fmt.Errorf("read configuration: %w", err)
			}
			return fmt.Errorf("configuration %s is not YAML: %s", src.File, firstLine(err))
		}
		if err := decode(k, dst, "configuration "+src.File); err != nil {
			return err
		}
	}
	if err := src.overlay(dst); err != nil {
		return err
	}
	env, err := fromEnv(src, Keys(dst))
	if err != nil {
		return err
	}
	for _, layer := range []struct {
		values map[string]any
		name   string
	}{{env, "environment"}, {src.Flags, "flags"}} {
		k := koanf.New(".")
		if err := k.Load(confmap.Provider(layer.values, "."), nil); err != nil {
			return fmt.Errorf("%s: %w", layer.name, err)
		}
		if err := decode(k, dst, layer.name); err != nil {
			return err
		}
	}
	return nil
}

func decode(k *koanf.Koanf, dst any, name string) error {
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           dst,
		TagName:          "koanf",
		ErrorUnused:      true,
		WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			durationsNeedUnits,
			mapstructure.StringToTimeDurationHookFunc(),
			mapstructure.StringToSliceHookFunc(","),
		),
	})
	if err != nil {
		return err
	}
	if err := d.Decode(k.Raw()); err != nil {
		return fmt.Errorf("%s: %s", name, oneLine(err))
	}
	return nil
}

// durationsNeedUnits refuses "timeout: 5": seconds or nanoseconds is not for us to guess.
func durationsNeedUnits(from, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() || from == to {
		return value, nil
	}
	if from.Kind() != reflect.String {
		return nil, fmt.Errorf("a duration needs a unit, like 10s or 500ms: %v", value)
	}
	return value, nil
}

func fromEnv(src Sources, keys []string) (map[string]any, error) {
	byName := make(map[string]string, len(keys))
	for _, key := range keys {
		byName[EnvName(key)] = key
	}
	values := map[string]any{}
	for _, pair := range src.Env {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, EnvPrefix) || ignored(src.EnvIgnored, name) {
			continue
		}
		key, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("environment variable %s is not a configuration key", name)
		}
		values[key] = value
	}
	return values, nil
}

func ignored(names []string, name string) bool {
	for _, n := range names {
		if strings.HasPrefix(name, n) {
			return true
		}
	}
	return false
}

// EnvName is the environment variable of a key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Keys lists every leaf key of a configuration struct, sorted.
func Keys(cfg any) []string {
	var keys []string
	walk(reflect.Indirect(reflect.ValueOf(cfg)), "", func(key string, _ reflect.Value, _ reflect.StructField) {
		keys = append(keys, key)
	})
	sort.Strings(keys)
	return keys
}

// walk visits the leaves: fields that are no structs.
func walk(v reflect.Value, prefix string, visit func(key string, v reflect.Value, f reflect.StructField)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		if tag == "" || tag == "-" || !f.IsExported() {
			continue
		}
		key := tag
		if prefix != "" {
			key = prefix + "." + tag
		}
		if v.Field(i).Kind() == reflect.Struct {
			walk(v.Field(i), key, visit)
			continue
		}
		visit(key, v.Field(i), f)
	}
}

func firstLine(err error) string { return strings.SplitN(err.Error(), "\n", 2)[0] }

// oneLine folds the decoder's list of errors into one clear line.
func oneLine(err error) string {
	s := strings.ReplaceAll(err.Error(), "\n\n", "\n")
	s = strings.TrimPrefix(s, "decoding failed due to the following error(s):\n")
	s = invalidKeys.ReplaceAllStringFunc(s, func(found string) string {
		m := invalidKeys.FindStringSubmatch(found)
		if m[1] == "" {
			return "unknown key " + m[2]
		}
		return "unknown key " + m[2] + " in " + m[1]
	})
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\n", "; ")), " ")
}

// invalidKeys is how the decoder names what it does not know.
var invalidKeys = regexp.MustCompile(`'([^']*)' has invalid keys: ([^\n]*)`)
