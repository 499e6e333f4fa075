"use client";

import { Trouble } from "@/components/trouble";

export default function DeskError() {
  return <Trouble reason="UNEXPECTED" />;
}
