package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"labswarm/api"
)

// InventoryService keeps rooms, seats and lists of PCs, lets unknown PCs in, and
// asks what it cannot know.
type InventoryService interface {
	Room(ctx context.Context, name string) (api.Room, error)
	PutRoom(ctx context.Context, r api.Room) (api.Room, error)
	RemoveRoom(ctx context.Context, name string) error
	MoveHost(ctx context.Context, name string, to api.Seat, room string) (api.Host, error)
	AcceptDisks(ctx context.Context, name string) (api.Host, error)
	Import(ctx context.Context, req api.ImportRequest) (api.ImportResult, error)
	Export(ctx context.Context, what, format string) (api.Export, error)
	// Learn returns nil when learn mode is not open.
	Learn(ctx context.Context) (*api.Learn, error)
	OpenLearn(ctx context.Context, l api.Learn) (api.Learn, error)
	CloseLearn(ctx context.Context) error
	Enrolments(ctx context.Context) ([]api.Enrolment, error)
	Bind(ctx context.Context, b api.EnrolBind) (api.Host, error)
	Questions(ctx context.Context) ([]api.Question, error)
	Answer(ctx context.Context, id uint64, answer string) (api.Question, error)
}

func (a *Admin) inventoryRoutes() []Route {
	room, host := api.RouteRooms+"/{name}", api.RouteHosts+"/{name}"
	return []Route{
		{Method: "POST", Path: api.RouteRooms, Role: api.RoleAdmin, Summary: "add or change a room", In: api.Room{}, Out: api.Room{}, h: posted(a.svc.PutRoom)},
		{Method: "GET", Path: room, Summary: "one room with its seats", Out: api.Room{}, h: a.room},
		{Method: "DELETE", Path: room, Role: api.RoleAdmin, Summary: "forget a room without PCs", h: a.removeRoom},
		{Method: "POST", Path: host + "/move", Role: api.RoleAdmin, Summary: "put a PC on another seat", In: api.HostMove{}, Out: api.Host{}, h: a.moveHost},
		{Method: "POST", Path: host + "/accept-disk", Role: api.RoleAdmin, Summary: "let a PC's new disks be written", Out: api.Host{}, h: a.acceptDisks},
		{Method: "POST", Path: api.RouteImport, Role: api.RoleAdmin, Summary: "check a list of rooms or PCs, and save it when asked to", In: api.ImportRequest{}, Out: api.ImportResult{}, asks: isCheck, h: posted(a.svc.Import)},
		{Method: "GET", Path: api.RouteExport, Summary: "rooms or PCs as CSV or TOML", Query: []string{"what", "format"}, Out: api.Export{}, h: a.export},
		{Method: "GET", Path: api.RouteLearn, Summary: "learn mode, null when it is not open", Out: api.Learn{}, h: get(a.svc.Learn)},
		{Method: "POST", Path: api.RouteLearn, Role: api.RoleAdmin, Summary: "let unknown PCs of a room enrol for a while", In: api.Learn{}, Out: api.Learn{}, h: posted(a.svc.OpenLearn)},
		{Method: "DELETE", Path: api.RouteLearn, Role: api.RoleAdmin, Summary: "end learn mode", h: a.closeLearn},
		{Method: "GET", Path: api.RouteEnrolled, Summary: "PCs that wait for a seat, in the order they appeared", Out: []api.Enrolment{}, h: get(a.svc.Enrolments)},
		{Method: "POST", Path: api.RouteEnrolled, Role: api.RoleAdmin, Summary: "put a waiting PC on a seat", In: api.EnrolBind{}, Out: api.Host{}, h: posted(a.svc.Bind)},
		{Method: "GET", Path: api.RouteQuestions, Summary: "questions that wait for an answer", Out: []api.Question{}, h: get(a.svc.Questions)},
		{Method: "POST", Path: api.RouteQuestions + "/{id}", Role: api.RoleOperator, Summary: "answer a question", In: api.QuestionAnswer{}, Out: api.Question{}, rooms: a.roomsOfQuestion, h: a.answerQuestion},
	}
}

// posted makes a handler of a call with one object in and one out.
func posted[In, Out any](call func(context.Context, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := decode(w, r, adminBody, &in); err != nil {
			return err
		}
		out, err := call(r.Context(), in)
		if err != nil {
			return err
		}
		return answer(w, out)
	}
}

func (a *Admin) room(w http.ResponseWriter, r *http.Request) error {
	out, err := a.svc.Room(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Admin) removeRoom(w http.ResponseWriter, r *http.Request) error {
	return nothing(w, a.svc.RemoveRoom(r.Context(), r.PathValue("name")))
}

func (a *Admin) closeLearn(w http.ResponseWriter, r *http.Request) error {
	return nothing(w, a.svc.CloseLearn(r.Context()))
}

func nothing(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (a *Admin) moveHost(w http.ResponseWriter, r *http.Request) error {
	return posted(func(ctx context.Context, m api.HostMove) (api.Host, error) {
		return a.svc.MoveHost(ctx, r.PathValue("name"), api.Seat{Label: m.Seat}, m.Room)
	})(w, r)
}

func (a *Admin) acceptDisks(w http.ResponseWriter, r *http.Request) error {
	h, err := a.svc.AcceptDisks(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, h)
}

func (a *Admin) export(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	out, err := a.svc.Export(r.Context(), q.Get("what"), q.Get("format"))
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Admin) answerQuestion(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return fail(http.StatusNotFound, api.CodeNotFound, "question %q is not known", r.PathValue("id"))
	}
	return posted(func(ctx context.Context, q api.QuestionAnswer) (api.Question, error) {
		return a.svc.Answer(ctx, id, q.Answer)
	})(w, r)
}
