//! One worker: a VM of its own, called as Envoy calls it.

use anyhow::{Context, Result, bail};
use wasmtime::{Instance, Linker, Store, WasmParams, WasmResults};

use crate::exchange::{Headers, HttpCall, LocalReply, Outcome, Request, Response};
use crate::gate::Gate;
use crate::gateway::{Gateway, Plugin, into_anyhow};
use crate::imports;
use crate::state::{State, Stream};

/// Instructions that one callback may take. Configuring 10 000 customers needs a tenth of it.
const FUEL: u64 = 20_000_000_000;

/// The action by which a filter holds a request back.
const PAUSE: u32 = 1;

/// A VM with a root context.
pub struct Worker {
    store: Store<State>,
    instance: Instance,
    root: u32,
    last_context: u32,
}

/// A request whose response is still to come.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct InFlight {
    context: u32,
    /// The filter's own answer, if it gave one.
    pub local_reply: Option<LocalReply>,
    /// The filter holds the request back. Without an answer of its own it would wait for ever.
    pub held: bool,
}

// === impl Worker ===

impl Worker {
    pub(crate) fn start(
        plugin: &Plugin,
        gateway: &Gateway,
        number: usize,
        configuration: &str,
        gate: Gate,
    ) -> Result<Self> {
        let mut state = State::new(
            number,
            gateway.shared.clone(),
            gateway.metrics.clone(),
            gateway.clock.clone(),
            gate,
        );
        state.environment = gateway.environment();
        let mut store = Store::new(&plugin.engine, state);
        store.limiter(State::limiter);
        store.set_fuel(FUEL).map_err(into_anyhow)?;
        let mut linker = Linker::new(&plugin.engine);
        imports::link(&mut linker).map_err(into_anyhow)?;
        linker
            .define_unknown_imports_as_traps(&plugin.module)
            .map_err(into_anyhow)?;
        let instance = linker
            .instantiate(&mut store, &plugin.module)
            .map_err(into_anyhow)?;
        let mut worker = Self {
            store,
            instance,
            root: 0,
            last_context: 0,
        };
        let _none: Option<()> = worker.call("_initialize", ())?;
        worker.root = worker.configure(configuration)?;
        Ok(worker)
    }

    /// A new configuration in the same VM, as Envoy does it: a new root context, and the old one ends. When the
    /// plugin refuses it, the old one stays and the error holds the log.
    pub fn reconfigure(&mut self, configuration: &str) -> Result<()> {
        let next = self.configure(configuration)?;
        let old = std::mem::replace(&mut self.root, next);
        let _done: Option<u32> = self.call("proxy_on_done", old)?;
        let _none: Option<()> = self.call("proxy_on_delete", old)?;
        Ok(())
    }

    /// Sends a request and lets the upstream answer 200 without headers.
    pub fn request(&mut self, request: Request) -> Result<Outcome> {
        let in_flight = self.begin(request)?;
        self.finish(in_flight, Response::default())
    }

    /// Sends a request up to the upstream.
    pub fn begin(&mut self, request: Request) -> Result<InFlight> {
        self.last_context += 1;
        let context = self.last_context;
        let count = u32::try_from(request.headers.0.len())?;
        self.store
            .data_mut()
            .streams
            .insert(context, Stream::of(request));
        let _none: Option<()> = self.call("proxy_on_context_create", (context, self.root))?;
        let action: Option<u32> =
            self.on_stream(context, "proxy_on_request_headers", (context, count, 1_u32))?;
        let local_reply = self
            .store
            .data()
            .streams
            .get(&context)
            .and_then(|stream| stream.local_reply.clone());
        Ok(InFlight {
            context,
            local_reply,
            held: action == Some(PAUSE),
        })
    }

    /// Lets the upstream answer and ends the stream. An answer of the filter's own passes it too, as in Envoy.
    pub fn finish(&mut self, in_flight: InFlight, response: Response) -> Result<Outcome> {
        let InFlight {
            context,
            local_reply,
            held,
        } = in_flight;
        let status = local_reply.as_ref().map_or(200, |reply| reply.status);
        let mut headers = Headers::from_text(&[(":status", &status.to_string())]);
        headers.0.extend(
            local_reply
                .as_ref()
                .map_or(response.headers.0, |reply| reply.headers.0.clone()),
        );
        let count = u32::try_from(headers.0.len())?;
        let stream = self
            .store
            .data_mut()
            .streams
            .get_mut(&context)
            .context("the stream has ended")?;
        stream.response = headers;
        let _action: Option<u32> = self.on_stream(
            context,
            "proxy_on_response_headers",
            (context, count, 1_u32),
        )?;
        let _none: Option<()> = self.on_stream(context, "proxy_on_log", context)?;
        let _done: Option<u32> = self.on_stream(context, "proxy_on_done", context)?;
        let _none: Option<()> = self.on_stream(context, "proxy_on_delete", context)?;
        let stream = self
            .store
            .data_mut()
            .streams
            .remove(&context)
            .context("the stream has ended")?;
        Ok(Outcome {
            local_reply,
            held,
            headers: stream.response,
            set_properties: stream.set_properties,
        })
    }

    /// Lets the timer fire, if the plugin set one.
    pub fn tick(&mut self) -> Result<()> {
        if self.store.data().tick_period_ms > 0 {
            let _none: Option<()> = self.call("proxy_on_tick", self.root)?;
        }
        Ok(())
    }

    /// The timer's period; 0 when there is none.
    pub fn tick_period_ms(&self) -> u32 {
        self.store.data().tick_period_ms
    }

    /// Takes the HTTP calls that were made since the last time.
    pub fn take_http_calls(&mut self) -> Vec<HttpCall> {
        std::mem::take(&mut self.store.data_mut().http_calls)
    }

    /// Answers an HTTP call; no headers at all mean that it failed or timed out.
    pub fn answer(&mut self, token: u32, headers: Headers, body: Vec<u8>) -> Result<()> {
        let (count, size) = (u32::try_from(headers.0.len())?, u32::try_from(body.len())?);
        self.store.data_mut().call_answer = Some((headers, body));
        let answered = self.call(
            "proxy_on_http_call_response",
            (self.root, token, count, size, 0_u32),
        );
        self.store.data_mut().call_answer = None;
        let _none: Option<()> = answered?;
        Ok(())
    }

    /// What the plugin logged, with the level's number.
    pub fn logs(&self) -> &[(u32, String)] {
        &self.store.data().logs
    }

    /// From now on host calls pass this gate.
    pub fn set_gate(&mut self, gate: Gate) {
        self.store.data_mut().gate = gate;
    }

    /// What `proxy_call_foreign_function` answers for a name.
    pub fn set_foreign_function(&mut self, name: &str, answer: &[u8]) {
        self.store
            .data_mut()
            .foreign
            .insert(name.to_owned(), answer.to_vec());
    }

    /// Bytes of the VM's memory.
    pub fn memory_bytes(&mut self) -> usize {
        self.instance
            .get_memory(&mut self.store, "memory")
            .map_or(0, |memory| memory.data_size(&self.store))
    }

    /// Instructions (units of fuel) that the last callback took.
    pub fn instructions(&self) -> Result<u64> {
        Ok(FUEL - self.store.get_fuel().map_err(into_anyhow)?)
    }

    fn configure(&mut self, configuration: &str) -> Result<u32> {
        self.last_context += 1;
        let root = self.last_context;
        self.store.data_mut().plugin_configuration = configuration.as_bytes().to_vec();
        let _none: Option<()> = self.call("proxy_on_context_create", (root, 0_u32))?;
        let started: Option<u32> = self.call("proxy_on_vm_start", (root, 0_u32))?;
        let size = u32::try_from(configuration.len())?;
        let configured: Option<u32> = self.call("proxy_on_configure", (root, size))?;
        if started == Some(0) || configured == Some(0) {
            let lines: Vec<&str> = self.logs().iter().map(|(_, line)| line.as_str()).collect();
            bail!(
                "the plugin refused its configuration:\n{}",
                lines.join("\n")
            );
        }
        Ok(root)
    }

    fn on_stream<P: WasmParams, R: WasmResults>(
        &mut self,
        context: u32,
        name: &str,
        arguments: P,
    ) -> Result<Option<R>> {
        self.store.data_mut().current = context;
        let result = self.call(name, arguments);
        self.store.data_mut().current = 0;
        result
    }

    /// Calls an export; `None` when the module does not have it, as Envoy skips a missing callback.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        arguments: P,
    ) -> Result<Option<R>> {
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
            return Ok(None);
        };
        let function = function.typed::<P, R>(&self.store).map_err(into_anyhow)?;
        self.store.set_fuel(FUEL).map_err(into_anyhow)?;
        let result = function
            .call(&mut self.store, arguments)
            .map_err(into_anyhow);
        Ok(Some(
            result.with_context(|| format!("the VM trapped in {name}"))?,
        ))
    }
}
