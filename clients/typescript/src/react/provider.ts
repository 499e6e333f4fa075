"use client";

import { createContext, createElement, useContext, type ReactElement, type ReactNode } from "react";

import type { DiallerClient } from "../client.js";

const ClientContext = createContext<DiallerClient | null>(null);

/** Gives the hooks their client; stands inside a `QueryClientProvider`. */
export function DiallerProvider(properties: {
  readonly client: DiallerClient;
  readonly children?: ReactNode;
}): ReactElement {
  return createElement(
    ClientContext.Provider,
    { value: properties.client },
    properties.children,
  );
}

/** Return the client of the nearest `DiallerProvider`. */
export function useDialler(): DiallerClient {
  const client = useContext(ClientContext);
  if (client === null) throw new Error("useDialler needs a DiallerProvider above it");
  return client;
}
