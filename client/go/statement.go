package trilith

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/google/uuid"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Statement is SQL with what belongs to it.
type Statement struct {
	// SQL is the text. Required.
	SQL string
	// Context has query context by Druid's names, such as "maxNumTasks". May be nil.
	Context map[string]any
	// Parameters are the values of the `?` of SQL, in order: nil, bool, integers, floats, string, time.Time, slices of
	// these, or Parameter for another SQL type.
	Parameters []any
	// ID becomes the context's sqlQueryId; the id of a task is "query-" and this. Default: the context's own, or a new
	// UUID.
	ID string
}

// Parameter is a value with the SQL type that it shall have: "BIGINT", "VARCHAR", "DATE", …
type Parameter struct {
	Type  string
	Value any
}

// wire is a statement as it is sent.
type wire struct {
	id          string
	contextJSON string
	parameters  []*taskv1.Parameter
}

func (s *Statement) encode() (*wire, error) {
	values := map[string]any{}
	maps.Copy(values, s.Context)
	if s.ID != "" {
		values["sqlQueryId"] = s.ID
	}
	id, isText := values["sqlQueryId"].(string)
	if values["sqlQueryId"] == nil {
		id = uuid.NewString()
		values["sqlQueryId"] = id
	} else if !isText {
		return nil, invalidInput("sqlQueryId must be a string, not %v", values["sqlQueryId"])
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, invalidInput("the context is not JSON: %v", err)
	}
	encoded := &wire{id: id, contextJSON: string(text)}
	for index, value := range s.Parameters {
		parameter, ok := value.(Parameter)
		if !ok {
			parameter, err = typeParameter(value)
		}
		if err != nil {
			return nil, invalidInput("parameter %d: %v", index+1, err)
		}
		text, err := json.Marshal(parameter.Value)
		if err != nil {
			return nil, invalidInput("parameter %d is not JSON: %v", index+1, err)
		}
		encoded.parameters = append(encoded.parameters, &taskv1.Parameter{Type: parameter.Type, ValueJson: string(text)})
	}
	return encoded, nil
}

// typeParameter finds the SQL type of a Go value.
func typeParameter(value any) (Parameter, error) {
	if instant, ok := value.(time.Time); ok {
		return Parameter{Type: "TIMESTAMP", Value: instant.UnixMilli()}, nil
	}
	if value == nil {
		return Parameter{Type: "VARCHAR"}, nil
	}
	switch kind := reflect.TypeOf(value).Kind(); kind {
	case reflect.String:
		return Parameter{Type: "VARCHAR", Value: value}, nil
	case reflect.Bool:
		return Parameter{Type: "BOOLEAN", Value: value}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return Parameter{Type: "BIGINT", Value: value}, nil
	case reflect.Float32, reflect.Float64:
		return Parameter{Type: "DOUBLE", Value: value}, nil
	case reflect.Slice, reflect.Array:
		return Parameter{Type: "ARRAY", Value: value}, nil
	default:
		return Parameter{}, fmt.Errorf("a value of Go type %T has no SQL type; use trilith.Parameter", value)
	}
}
